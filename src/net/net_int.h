/* Between the files of net/. */
#ifndef NET_NET_INT_H
#define NET_NET_INT_H

#include "net/net.h"

int net_tap_open(struct opts *o, const struct net_env *env, struct net_port **out,
		 struct err *err);
int net_stream_open(struct opts *o, const struct net_env *env, struct net_port **out,
		    struct err *err);
int net_user_open(struct opts *o, const struct net_env *env, struct net_port **out,
		  struct err *err);

/* A port on a socket to passt, which is taken over, also when it fails. */
int net_stream_user(const struct net_env *env, const char *id, int fd, struct net_port **out,
		    struct err *err);
/* Frames of the guest that no peer took. */
uint64_t net_stream_dropped(const struct net_port *p);

#endif
