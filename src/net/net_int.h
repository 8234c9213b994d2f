/* Between the files of net/. */
#ifndef NET_NET_INT_H
#define NET_NET_INT_H

#include "net/net.h"

int net_tap_open(struct opts *o, struct net_port **out, struct err *err);

#endif
