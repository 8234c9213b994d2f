/*
 * -netdev user: the network of the host's user through passt, a program of its own that
 * translates between frames and sockets. It is started before isolation by whoever holds the
 * right to (base/rights.h) and speaks the protocol of net/stream.c.
 *
 * The keys are QEMU's; what passt can do is translated, everything else is refused by name. Its
 * arguments are made here from checked values only, so that no text of an option can
 * become another argument. Control loop. The operator is trusted, the text is checked.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/net_int.h"

#define ARGS_MAX 256
#define TEXT_MAX 4096
#define SPEC_MAX 128

const char *const net_list_keys[] = {"hostfwd", "dnssearch", NULL};

/* The arguments for passt: args[] points into text[]. */
struct user {
	const char *id;
	const char *args[ARGS_MAX + 1];
	unsigned count;
	char text[TEXT_MAX];
	size_t used;
	bool tcp, udp;	      /* something is forwarded */
	struct in_addr guest; /* dhcpstart= or what net= means; 0: passt decides */
	struct err *err;
};

struct user_options {
	char *id, *net, *host, *dhcpstart, *dns;
	bool ipv4, ipv6, restricted;
};
#define O(f) offsetof(struct user_options, f)
static const struct opt_desc descs[] = {
	{"id", OPT_STR, O(id), .required = true},
	{"net", OPT_STR, O(net)},
	{"host", OPT_STR, O(host)},
	{"dhcpstart", OPT_STR, O(dhcpstart)},
	{"dns", OPT_STR, O(dns)},
	{"ipv4", OPT_BOOL, O(ipv4), .def = "on"},
	{"ipv6", OPT_BOOL, O(ipv6), .def = "on"},
	{"restrict", OPT_BOOL, O(restricted), .def = "off"},
	{NULL},
};
#undef O

static int arg(struct user *u, const char *text)
{
	size_t n = strlen(text) + 1;

	if (u->count == ARGS_MAX || n > sizeof(u->text) - u->used) {
		return err_set(u->err, E2BIG, "-netdev user,id=%s: too many rules for passt",
			       u->id);
	}
	memcpy(u->text + u->used, text, n);
	u->args[u->count++] = u->text + u->used;
	u->used += n;
	return 0;
}

static int arg2(struct user *u, const char *key, const char *value)
{
	int ret = arg(u, key);

	return ret ? ret : arg(u, value);
}

static int arg_addr(struct user *u, const char *key, struct in_addr a)
{
	char text[INET_ADDRSTRLEN];

	return arg2(u, key, inet_ntop(AF_INET, &a, text, sizeof(text)));
}

static int bad(struct user *u, const char *key, const char *value, const char *want)
{
	return err_set(u->err, EINVAL, "-netdev user,id=%s: %s=%s is not valid; %s", u->id, key,
		       value, want);
}

static int parse_addr(struct user *u, const char *key, const char *value, struct in_addr *out)
{
	return inet_pton(AF_INET, value, out) == 1 && out->s_addr
		       ? 0
		       : bad(u, key, value, "it has to be an IPv4 address");
}

/* net=10.0.2.0/24: the network, and the places that QEMU gives in it. */
static int parse_net(struct user *u, const char *value, struct in_addr *net, unsigned *bits)
{
	const char *slash = strchr(value, '/');
	char text[INET_ADDRSTRLEN];
	uint64_t n = 24;

	if (slash && (parse_u64(slash + 1, &n) || n < 8 || n > 30)) {
		return bad(u, "net", value, "the mask is 8 to 30 bits");
	}
	snprintf(text, sizeof(text), "%.*s", slash ? (int)(slash - value) : 15, value);
	if (inet_pton(AF_INET, text, net) != 1 || (!slash && strlen(value) > 15)) {
		return bad(u, "net", value, "it has to be ADDRESS[/BITS]");
	}
	*bits = (unsigned)n;
	net->s_addr &= htonl(~(uint32_t)0 << (32 - n));
	return 0;
}

static bool within(struct in_addr a, struct in_addr net, unsigned bits)
{
	return !((a.s_addr ^ net.s_addr) & htonl(~(uint32_t)0 << (32 - bits)));
}

/* Without net=, host= and dhcpstart= the guest gets the address and the routes of the host. */
static int addresses(struct user *u, const struct user_options *o)
{
	struct in_addr net = {htonl(0x0a000200)}, host, guest;
	unsigned bits = 24;
	char text[16];
	int ret = 0;

	if (!o->net && !o->host && !o->dhcpstart) {
		return 0;
	}
	if (o->net) {
		ret = parse_net(u, o->net, &net, &bits);
	}
	host.s_addr = net.s_addr | htonl(2);
	/* QEMU's places are 2 and 15; a network that is too small for that has others. */
	guest.s_addr = net.s_addr | htonl(bits <= 28 ? 15 & ~(bits == 28 ? 1u : 0u) : 1);
	if (!ret && o->host) {
		ret = parse_addr(u, "host", o->host, &host);
	}
	if (!ret && o->dhcpstart) {
		ret = parse_addr(u, "dhcpstart", o->dhcpstart, &guest);
	}
	if (!ret && (!within(host, net, bits) || !within(guest, net, bits) ||
		     host.s_addr == guest.s_addr)) {
		ret = err_set(u->err, EINVAL,
			      "-netdev user,id=%s: host= and dhcpstart= have to be two "
			      "addresses of the network net=",
			      u->id);
	}
	if (ret) {
		return ret;
	}
	u->guest = guest;
	snprintf(text, sizeof(text), "%u", bits);
	ret = arg_addr(u, "-a", guest);
	ret = ret ? ret : arg2(u, "-n", text);
	return ret ? ret : arg_addr(u, "-g", host);
}

/* --- hostfwd=tcp|udp:[ADDRESS]:PORT-[GUEST]:PORT --- */

/* Up to one of `ends`, into buf; *p moves behind it. False: no such end, or too long. */
static bool part(const char **p, const char *ends, char *buf, size_t size)
{
	size_t n = strcspn(*p, ends);

	if ((!(*p)[n] && *ends) || n >= size) {
		return false;
	}
	memcpy(buf, *p, n);
	buf[n] = '\0';
	*p += n + ((*p)[n] != '\0');
	return true;
}

static bool port_valid(const char *text)
{
	uint64_t n;

	return text[0] >= '1' && text[0] <= '9' && !parse_u64(text, &n) && n <= 65535;
}

static int hostfwd(struct user *u, const char *value)
{
	static const char form[] = "it has to be tcp|udp:[ADDRESS]:PORT-[GUEST]:PORT";
	char proto[4], addr[INET_ADDRSTRLEN], port[8], guest[INET_ADDRSTRLEN], gport[8];
	char spec[SPEC_MAX];
	struct in_addr a = {0}, g = {0};
	const char *p = value;
	bool udp;

	if (!part(&p, ":", proto, sizeof(proto)) || !part(&p, ":", addr, sizeof(addr)) ||
	    !part(&p, "-", port, sizeof(port)) || !part(&p, ":", guest, sizeof(guest)) ||
	    !part(&p, "", gport, sizeof(gport)) || !port_valid(port) || !port_valid(gport)) {
		return bad(u, "hostfwd", value, form);
	}
	udp = !strcmp(proto, "udp");
	if ((!udp && strcmp(proto, "tcp") && *proto) ||
	    (*addr && inet_pton(AF_INET, addr, &a) != 1) ||
	    (*guest && inet_pton(AF_INET, guest, &g) != 1)) {
		return bad(u, "hostfwd", value, form);
	}
	if (g.s_addr && g.s_addr != u->guest.s_addr) {
		return bad(u, "hostfwd", value,
			   "passt forwards to the guest's own address only: leave "
			   "it out, or give the same as dhcpstart=");
	}
	snprintf(spec, sizeof(spec), "%s%s%s:%s", a.s_addr ? addr : "", a.s_addr ? "/" : "",
		 port, gport);
	*(udp ? &u->udp : &u->tcp) = true;
	return arg2(u, udp ? "-u" : "-t", spec);
}

static bool name_valid(const char *text)
{
	return *text && strlen(text) <= 253 && text[0] != '-' &&
	       text[strspn(
		       text,
		       "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.")] ==
		       '\0';
}

static int dnssearch(struct user *u, const char *value)
{
	return name_valid(value) ? arg2(u, "-S", value)
				 : bad(u, "dnssearch", value, "it has to be a domain name");
}

/* A list is numbered keys, and from JSON objects {"str": …}. */
static int each(struct user *u, struct opts *o, const char *key,
		int (*fn)(struct user *u, const char *value))
{
	int ret = 0;

	for (unsigned i = 0; !ret; i++) {
		char name[32];
		const char *v;

		snprintf(name, sizeof(name), "%s.%u", key, i);
		v = opts_get(o, name);
		if (!v) {
			snprintf(name, sizeof(name), "%s.%u.str", key, i);
			v = opts_get(o, name);
		}
		if (!v) {
			break;
		}
		ret = fn(u, v);
	}
	return ret;
}

static int mark(struct user *u, const char *value)
{
	return 0;
}

/* QEMU's keys that passt has nothing for; said apart from those that nobody knows. */
static int refuse_known(struct user *u, struct opts *o)
{
	static const char *const keys[] = {
		"hostname",	  "domainname",	      "guestfwd", "smb",      "smbserver",
		"tftp",		  "tftp-server-name", "bootfile", "ipv6-net", "ipv6-prefix",
		"ipv6-prefixlen", "ipv6-host",	      "ipv6-dns",
	};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (opts_get(o, keys[i])) {
			return err_set(u->err, EINVAL,
				       "-netdev user,id=%s: %s= has no equivalent in passt; "
				       "leave it out",
				       u->id, keys[i]);
		}
	}
	return 0;
}

static int translate(struct user *u, const struct user_options *o, struct opts *opts)
{
	struct in_addr dns;
	int ret;

	if (strlen(o->id) > 63) {
		return err_set(u->err, EINVAL,
			       "-netdev user: the id '%s' is longer than 63 characters", o->id);
	}
	if (o->restricted) {
		return err_set(u->err, EINVAL,
			       "-netdev user,id=%s: restrict=on cannot be had; passt "
			       "does not isolate the guest",
			       u->id);
	}
	if (!o->ipv4 && !o->ipv6) {
		return err_set(u->err, EINVAL,
			       "-netdev user,id=%s: ipv4=off and ipv6=off leave nothing",
			       u->id);
	}
	ret = addresses(u, o);
	if (!ret && (!o->ipv4 || !o->ipv6)) {
		ret = arg(u, o->ipv4 ? "-4" : "-6");
	}
	if (!ret && o->dns) {
		ret = parse_addr(u, "dns", o->dns, &dns);
		ret = ret ? ret : arg_addr(u, "--dns-forward", dns);
	}
	ret = ret ? ret : each(u, opts, "dnssearch", dnssearch);
	ret = ret ? ret : each(u, opts, "hostfwd", hostfwd);
	/* Said, because the UDP ports of forwarded TCP ports would be forwarded, too. */
	if (!ret && !u->tcp) {
		ret = arg2(u, "-t", "none");
	}
	if (!ret && !u->udp) {
		ret = arg2(u, "-u", "none");
	}
	return ret;
}

int net_user_open(struct opts *o, const struct net_env *env, struct net_port **out,
		  struct err *err)
{
	struct user *u = calloc(1, sizeof(*u));
	const char *id = opts_get(o, "id");
	struct user_options uo = {0};
	int fd, ret;

	if (!u) {
		return err_set(err, ENOMEM, "-netdev user: out of memory");
	}
	u->err = err;
	u->id = id ? id : "";
	ret = refuse_known(u, o);
	/* Lists are looked at first: what nobody has asked for then is a key that nobody knows. */
	for (const char *const *k = net_list_keys; !ret && *k; k++) {
		ret = each(u, o, *k, mark);
	}
	ret = ret ? ret : opts_read(o, descs, &uo, err);
	ret = ret ? ret : translate(u, &uo, o);
	if (ret) {
		goto free_user;
	}
	fd = env->rights ? env->rights->passt(env->rights->arg, u->args, err)
			 : err_set(err, EPERM, "nobody can start passt here");
	if (fd < 0) {
		err_prefix(err, "-netdev user,id=%s", u->id);
		ret = fd;
		goto free_user;
	}
	ret = net_stream_user(env, u->id, fd, out, err);
free_user:
	opts_free_struct(descs, &uo);
	free(u);
	return ret;
}
