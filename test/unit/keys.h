/*
 * keys.h
 *	  Keys that everybody knows: those of RFC 7515, appendices A.2 and A.3, in
 *	  PEM, and some that must be refused.
 */
#ifndef FLOHSYNC_UNIT_KEYS_H
#define FLOHSYNC_UNIT_KEYS_H

static const char rsa_pkcs1[] = "-----BEGIN RSA PRIVATE KEY-----\n"
								"MIIEowIBAAKCAQEAofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd/wWJcyQoTbji9k0\n"
								"l8W26mPddxHmfHQp+Vaw+4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL+yRT+SFd2lZS+pC\n"
								"gNMsD1W/YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb/7OMg0LOL+bSf63kpaSHSX\n"
								"ndS5z5rexMdbBYUsLA9e+KXBdQOS+UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uD\n"
								"Zlxvb3qCo5ZwKh9kG4LT6/I5IhlJH7aGhyxXFvUK+DWNmoudF8NAco9/h9iaGNj8\n"
								"q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQIDAQABAoIBABKucaRpzQorw35S\n"
								"bEUAVx8dYXUdZOlJcHtiWQ+dC6V8ljxAHj/PLyzTveyI5QO/xkObCyjIL303l2cf\n"
								"UhPu2MFaJdjVzqACXuOrLot/eSFvxjvqVidTtAZExqFRJ9mylUVAoLvhowVWmC1O\n"
								"n95fZCXxTUtxNEG1Xcc7m0rtzJKs45J+N/V9DP1edYH6USyPSWGp6wuA+KgHRnKK\n"
								"Vf9GRx80JQY7nVNkL17eHoTWEwga+lwi0FEoW9Y7lDtWXYmKBWhUE+U8PGxlJf8f\n"
								"40493HDw1WRQ/aSLoS4QTp3rn7gYgeHEvfJdkkf0UMhlknlo53M09EFPdadQ4TlU\n"
								"bjqKc50CgYEA4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH/5IB3jw3bcxGn6QLvnE\n"
								"tfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw/Py5PJdTJNPY8cQn7ouZ2KKDcmnPG\n"
								"BY5t7yLc1QlQ5xHdwW1VhvKn+nXqhJTBgIPgtldC+KDV5z+y2XDwGUcCgYEAuQPE\n"
								"fgmVtjL0Uyyx88GZFF1fOunH3+7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYs\n"
								"p1ZSe7zFYHj7C6ul7TjeLQeZD/YwD66t62wDmpe/HlB+TnBA+njbglfIsRLtXlnD\n"
								"zQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdcCgYAHAp9XcCSrn8wVkMVkKdb7\n"
								"DOX4IKjzdahm+ctDAJN4O/y7OW5FKebvUjdAIt2GuoTZ71iTG+7F0F+lP88jtjP4\n"
								"U4qe7VHoewl4MKOfXZKTe+YCS1XbNvfgwJ3Ltyl1OH9hWvu2yza7q+d5PCsDzqtm\n"
								"27kxuvULVeya+TEdAB1ijQKBgQCH/3r6YrVH/uCWGy6bzV1nGNOdjKc9tmkfOJmN\n"
								"54dxdixdpozCQ6U4OxZrsj3FcOhHBsqAHvX2uuYjagqvo3cOj1TRqNocX40omfCC\n"
								"Mx3bD1yPPf/6TI2XECva/ggqEY2mYzmIiA5LVVmc5nrybr+lssFKneeyxN2Wq93S\n"
								"0iJMdQKBgCGHewxzoa1r8ZMD0LETNrToK423K377UCYqXfg5XMclbrjPbEC3YI1Z\n"
								"NqMtuhdBJqUnBi6tjKMF+34Xf0CUN8ncuXGO2CAYvO8PdyCixHX52ybaDjy1FtCE\n"
								"6yUXjoKNXKvUm7MWGsAYH6f4IegOetN5NvmUMFStCSkh7ixZLkN1\n"
								"-----END RSA PRIVATE KEY-----\n";

static const char rsa_pkcs8[] = "-----BEGIN PRIVATE KEY-----\n"
								"MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQCh+BYK4uPJtGXO\n"
								"jS1lYmM2K5J9vinh8CR3/BYlzJChNuOL2TSXxbbqY913EeZ8dCn5VrD7io8ImtxL\n"
								"aYk8wTM/U+3QGbh3hCUv7JFP5IV3aVlL6kKA0ywPVb9ilE8TA5a8bpvfbr3SvaNn\n"
								"juygxmj3AbONv/s4yDQs4v5tJ/reSlpIdJed1LnPmt7Ex1sFhSwsD174pcF1A5L5\n"
								"ROjtZMEQxrZHYJqkeDrrnGya11UxMFBji4NmXG9veoKjlnAqH2QbgtPr8jkiGUkf\n"
								"toaHLFcW9Qr4NY2ai50Xw0Byj3+H2JoY2PyrZ62EWQwuz3WTOTY8BwNNb2BvniHg\n"
								"VFbK5emhAgMBAAECggEAEq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyW\n"
								"PEAeP88vLNO97IjlA7/GQ5sLKMgvfTeXZx9SE+7YwVol2NXOoAJe46sui395IW/G\n"
								"O+pWJ1O0BkTGoVEn2bKVRUCgu+GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzj\n"
								"kn439X0M/V51gfpRLI9JYanrC4D4qAdGcopV/0ZHHzQlBjudU2QvXt4ehNYTCBr6\n"
								"XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl/x/jTj3ccPDVZFD9pIuhLhBOneufuBiB\n"
								"4cS98l2SR/RQyGWSeWjnczT0QU91p1DhOVRuOopznQKBgQDgHMQQ60imZV1URk0K\n"
								"pLttoLhyt3SmqdEf/kgHePDdtzEafpAu+cS191R2JiuoF2yzWXnwFDcqGigp5BNr\n"
								"0AHQfD8/Lk8l1Mk09jxxCfui5nYooNyac8YFjm3vItzVCVDnEd3BbVWG8qf6deqE\n"
								"lMGAg+C2V0L4oNXnP7LZcPAZRwKBgQC5A8R+CZW2MvRTLLHzwZkUXV866cff7tx6\n"
								"kqa0finGG0KgeqlaZPxgCZnFp7AeAcCMtiynVlJ7vMVgePsLq6XtON4tB5kP9jAP\n"
								"rq3rbAOal78eUH5OcED6eNuCV8ixEu1eWcPNCS/l1OW1EnXUEoEHKl54Xrrz2uNw\n"
								"kgMTP1FZ1wKBgAcCn1dwJKufzBWQxWQp1vsM5fggqPN1qGb5y0MAk3g7/Ls5bkUp\n"
								"5u9SN0Ai3Ya6hNnvWJMb7sXQX6U/zyO2M/hTip7tUeh7CXgwo59dkpN75gJLVds2\n"
								"9+DAncu3KXU4f2Fa+7bLNrur53k8KwPOq2bbuTG69QtV7Jr5MR0AHWKNAoGBAIf/\n"
								"evpitUf+4JYbLpvNXWcY052Mpz22aR84mY3nh3F2LF2mjMJDpTg7FmuyPcVw6EcG\n"
								"yoAe9fa65iNqCq+jdw6PVNGo2hxfjSiZ8IIzHdsPXI89//pMjZcQK9r+CCoRjaZj\n"
								"OYiIDktVWZzmevJuv6WywUqd57LE3Zar3dLSIkx1AoGAIYd7DHOhrWvxkwPQsRM2\n"
								"tOgrjbcrfvtQJipd+DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd/QJQ3\n"
								"ydy5cY7YIBi87w93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp/gh6A56\n"
								"03k2+ZQwVK0JKSHuLFkuQ3U=\n"
								"-----END PRIVATE KEY-----\n";

static const char rsa_1024[] = "-----BEGIN PRIVATE KEY-----\n"
							   "MIICdgIBADANBgkqhkiG9w0BAQEFAASCAmAwggJcAgEAAoGBAPTt+FNsBTJJTGHG\n"
							   "8OBlkMfI6GkoFJrgiMNKqPo45FPIlQmLo8gSt2FUauCpDZY4zi0Wu2/9i7LIz1o/\n"
							   "ljIR7aK+ZGnTXgQqyZ3o32BMy+xE8DB3/0kXapQu9G1V6Gc9cfD89g7FKIGU5gVp\n"
							   "eI3Kd6o3sbHmGftAjGnXd9ly5JJfAgMBAAECgYAeEfFA3Kwupk0YXAJKqm2B+ap+\n"
							   "7orJEPP5dfsU7VMq7h9OErTC5XlaG7Ebb+XZIZQ+eOH+N9Sk2H6Mh+36q7TO3rDZ\n"
							   "Wp7KNv4kdyhX6CKjmmI8CqudOKfg5/pONNo01c0VPVxo8SCxBBeVBV/tgqRsx6UM\n"
							   "RtqpbU1fZ5wEgiZYIQJBAPrunz1kbJBCP6A7f0elBPwI0SSUX5m3U1UWSSJKpygB\n"
							   "cCX9Z1JJushOKNgnNrEKMxRKKRhSvU2RZBIMUGUfBWkCQQD54FA7/eSLTxHBEuL6\n"
							   "QM+UkeXyYvYU/LN17HQGjNVmo6HJvx6F2EgD30mK3En4+eyayZjXvS3Jh4EQFMxf\n"
							   "k/iHAkB02WWBux/q1U63mL0eabO2gYySkh0qgXnmp2gK9eR89p54slXItdiqqerP\n"
							   "LQOE0ZETo60bTHwmgMuus9lEHXvxAkEAqoCcXwM04rYWaEdp59c3jaosXMOYJOP1\n"
							   "1N5+oUWSDBJVwGMQAcZ+BV5kQUNlmmV3RHuRNozY5G347C808Xb3mwJAGo8Ue9IE\n"
							   "30PFBCkKzc1VEXNAjYKFWx1NdzwkOYA9SWZlo6lDLd6WB9UyFBWTg42yzaC9kMn7\n"
							   "h1WgleMk80XrqQ==\n"
							   "-----END PRIVATE KEY-----\n";

static const char ec_sec1[] = "-----BEGIN EC PRIVATE KEY-----\n"
							  "MHcCAQEEII6bEJ5xkJi/mASH3x9dd+nLKWBuvtImO19XwhPfhPSyoAoGCCqGSM49\n"
							  "AwEHoUQDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEXH8UTNG72b\n"
							  "focs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n"
							  "-----END EC PRIVATE KEY-----\n";

static const char ec_pkcs8[] = "-----BEGIN PRIVATE KEY-----\n"
							   "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjpsQnnGQmL+YBIff\n"
							   "H1136cspYG6+0iY7X1fCE9+E9LKhRANCAAR/zc4ncPbEXUGDy+5v20t7WAczNXvp\n"
							   "7xO6z248e9FURcfxRM0bvZt+hyzf7bnuufSzaV1uqQskrYpGIyiFiOWt\n"
							   "-----END PRIVATE KEY-----\n";

static const char ec_p384[] = "-----BEGIN EC PRIVATE KEY-----\n"
							  "MIGkAgEBBDCcAb9FqUoDMgJSg7eihLea9yJun+eS+KR8DZetlJIT/x2Y7mWwbhSC\n"
							  "Bsaim/gBHiygBwYFK4EEACKhZANiAARsecHR1s4fta/L5taOPGusWTBoXYcL67jS\n"
							  "G+7bTR6hvek8VThn2Fjj4v6aksmAhtZyLQVaNm24KCRY/RFZOGX22qL865ZtgRtq\n"
							  "+vEWTW6qmZczXSMzSdOW+4csiNwTPkM=\n"
							  "-----END EC PRIVATE KEY-----\n";

static const char ec_password[] =
	"-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
	"MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAihbjaEPif6HQICCAAw\n"
	"DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEJyurScS9nHJf6EQQYZBktEEgZBO\n"
	"r0TyZMIsZy3iVPB1LNPDdmF7I0cgVbvNg0blRsD6261sqc5N+Il01cFlViZWoS3e\n"
	"nkwwBhlVLxkXLAityEAC1aCODFmcpLxZXDlTybO6ocBQxDHjY1jJmNQtFEnAtjSO\n"
	"qx5zFw4UNyq35Z0KaFQ46Hd40rFYVlRKZkbN5S2WS0WkUo22TGu03Mle8NIx4Kc=\n"
	"-----END ENCRYPTED PRIVATE KEY-----\n";

static const char ec_public[] = "-----BEGIN PUBLIC KEY-----\n"
								"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n"
								"6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n"
								"-----END PUBLIC KEY-----\n";

#endif /* FLOHSYNC_UNIT_KEYS_H */
