/*
 * guc_networks.h
 *	  What flohsync.http_allowed_networks says.  See guc_networks.c.
 */
#ifndef FLOHSYNC_GUC_NETWORKS_H
#define FLOHSYNC_GUC_NETWORKS_H

typedef struct GucNetwork
{
	int			  family; /* AF_INET or AF_INET6 */
	unsigned char address[16];
	int			  bits;
} GucNetwork;

/*
 * guc_parse_networks counts the networks of a list and stores the first of them; -1: problem
 * says what is wrong.
 */
extern int guc_parse_networks(const char *list, GucNetwork *networks, int room, char *problem,
							  size_t size);

#endif /* FLOHSYNC_GUC_NETWORKS_H */
