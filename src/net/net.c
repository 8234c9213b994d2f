/* -netdev: the table of back end types. */
#include "net/net.h"

#include <errno.h>
#include <string.h>

#include "net/net_int.h"

static const struct {
	const char *type;
	int (*open)(struct opts *o, const struct net_env *env, struct net_port **out,
		    struct err *err);
} types[] = {
	{"tap", net_tap_open},
	{"user", net_user_open},
	{"stream", net_stream_open},
};

int net_open(struct opts *o, const struct net_env *env, struct net_port **out, struct err *err)
{
	const char *type = opts_get(o, "type");

	for (size_t i = 0; type && i < ARRAY_SIZE(types); i++) {
		if (!strcmp(types[i].type, type)) {
			return types[i].open(o, env, out, err);
		}
	}
	return err_set(err, EINVAL, "-netdev: unknown type '%s'; there are tap, user and stream",
		       type ? type : "");
}
