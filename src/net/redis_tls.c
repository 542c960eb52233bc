/*
 * redis_tls.c
 *	  TLS over a socket that does not block.
 *
 * The certificate is checked against flohsync.redis_ca_file, or the system's
 * authorities, and must be for the host of the address.  There is no way to
 * switch that off.  OpenSSL allocates by itself; nothing here raises.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "net/redis_tls.h"

struct RedisTls
{
	SSL_CTX *context;
	SSL		*ssl;
};

static void
tls_problem(const char *what, char *problem, size_t size)
{
	unsigned long code = ERR_get_error();
	const char	 *reason = code != 0 ? ERR_reason_error_string(code) : NULL;

	snprintf(problem, size, "%s%s%s", what, reason ? ": " : "", reason ? reason : "");
	ERR_clear_error();
}

/* redis_tls_open returns NULL with what is wrong. */
RedisTls *
redis_tls_open(int fd, const char *host, const char *ca_file, char *problem, size_t size)
{
	RedisTls	 *tls = calloc(1, sizeof(RedisTls));
	unsigned char numeric[16];
	bool		  is_address = inet_pton(AF_INET, host, numeric) == 1 ||
		inet_pton(AF_INET6, host, numeric) == 1;
	X509_VERIFY_PARAM *param;

	if (tls == NULL)
	{
		strlcpy(problem, "out of memory", size);
		return NULL;
	}
	ERR_clear_error();
	tls->context = SSL_CTX_new(TLS_client_method());
	if (tls->context == NULL || SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION) != 1)
		tls_problem("TLS cannot be used", problem, size);
	else if (ca_file[0] != '\0' ? SSL_CTX_load_verify_locations(tls->context, ca_file, NULL) != 1 :
								  SSL_CTX_set_default_verify_paths(tls->context) != 1)
		tls_problem("could not read the CA certificates", problem, size);
	else if ((tls->ssl = SSL_new(tls->context)) == NULL || SSL_set_fd(tls->ssl, fd) != 1)
		tls_problem("TLS cannot be used", problem, size);
	else
	{
		SSL_set_verify(tls->ssl, SSL_VERIFY_PEER, NULL);
		SSL_set_mode(tls->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
		param = SSL_get0_param(tls->ssl);
		X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
		if (is_address ? X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1 :
						 X509_VERIFY_PARAM_set1_host(param, host, 0) == 1 &&
					SSL_set_tlsext_host_name(tls->ssl, host) == 1)
			return tls;
		tls_problem("could not set up the check of the host name", problem, size);
	}
	redis_tls_close(tls);
	return NULL;
}

static TlsWant
tls_want(RedisTls *tls, int rc)
{
	switch (SSL_get_error(tls->ssl, rc))
	{
		case SSL_ERROR_WANT_READ:
			return TLS_READ;
		case SSL_ERROR_WANT_WRITE:
			return TLS_WRITE;
		default:
			return TLS_FAILED;
	}
}

TlsWant
redis_tls_handshake(RedisTls *tls, char *problem, size_t size)
{
	TlsWant want;
	int		rc;

	ERR_clear_error();
	rc = SSL_connect(tls->ssl);
	if (rc == 1)
		return TLS_DONE;
	want = tls_want(tls, rc);
	if (want == TLS_FAILED)
	{
		long verify = SSL_get_verify_result(tls->ssl);

		if (verify != X509_V_OK)
		{
			snprintf(problem, size, "its certificate is not accepted: %s",
					 X509_verify_cert_error_string(verify));
			ERR_clear_error();
		}
		else
			tls_problem("the TLS handshake failed", problem, size);
	}
	return want;
}

TlsWant
redis_tls_read(RedisTls *tls, char *buffer, size_t size, size_t *got)
{
	int rc;

	ERR_clear_error();
	rc = SSL_read_ex(tls->ssl, buffer, size, got);
	return rc == 1 ? TLS_DONE : tls_want(tls, rc);
}

/* redis_tls_peek: TLS_DONE when there is something to read. */
TlsWant
redis_tls_peek(RedisTls *tls)
{
	size_t got;
	char   byte;
	int	   rc;

	ERR_clear_error();
	rc = SSL_peek_ex(tls->ssl, &byte, 1, &got);
	return rc == 1 ? TLS_DONE : tls_want(tls, rc);
}

TlsWant
redis_tls_write(RedisTls *tls, const char *data, size_t len, size_t *sent)
{
	int rc;

	ERR_clear_error();
	rc = SSL_write_ex(tls->ssl, data, len, sent);
	return rc == 1 ? TLS_DONE : tls_want(tls, rc);
}

void
redis_tls_close(RedisTls *tls)
{
	if (tls->ssl)
		SSL_free(tls->ssl);
	if (tls->context)
		SSL_CTX_free(tls->context);
	free(tls);
	ERR_clear_error();
}
