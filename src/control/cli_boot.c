/*
 * -boot, -uuid and -smbios: how the machine starts and who it says it is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "control/cli_int.h"

/* Several devices of a kind start in the order of their slots; bootindex= says more. */
static int boot_order(struct vm_config *cfg, const char *order, struct err *err)
{
	if (strlen(order) > 2 || strspn(order, "cn") != strlen(order) ||
	    (order[0] && order[0] == order[1])) {
		return err_set(err, EINVAL,
			       "-boot: order=%s cannot be had; there are c (disks) and n "
			       "(network), bootindex= of a device says it exactly",
			       order);
	}
	strcpy(cfg->boot_order, order);
	return 0;
}

/* Keys that are for other firmware or have one possible value. */
static const struct {
	const char *key, *value, *why;
} boot_fixed[] = {
	{"once", NULL, "there is one order for all starts; give the device a bootindex="},
	{"splash", NULL, "there is no graphic console"},
	{"reboot-timeout", "-1", "UEFI firmware goes on to its own menu when nothing boots"},
};

int cli_set_boot(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	struct vm_config *cfg = c->cfg;
	bool strict;
	struct opts opts;
	uint64_t ms;
	const char *v;
	int ret = opts_parse(&opts, "-boot", arg, "order", err);

	if (ret) {
		return ret;
	}
	v = opts_get(&opts, "order");
	if (v) {
		ret = boot_order(cfg, v, err);
	}
	v = opts_get(&opts, "menu");
	if (!ret && v && parse_bool(v, &cfg->boot_menu)) {
		ret = err_set(err, EINVAL, "-boot: menu=%s is neither on nor off", v);
	}
	v = opts_get(&opts, "splash-time");
	if (!ret && v && (parse_u64(v, &ms) || ms > UINT16_MAX)) {
		ret = err_set(err, EINVAL,
			      "-boot: splash-time=%s is not a number of milliseconds "
			      "up to 65535",
			      v);
	} else if (!ret && v) {
		cfg->boot_wait_set = true;
		cfg->boot_wait_ms = (uint16_t)ms;
	}
	v = opts_get(&opts, "strict"); /* what is not named is not tried in any case */
	if (!ret && v && parse_bool(v, &strict)) {
		ret = err_set(err, EINVAL, "-boot: strict=%s is neither on nor off", v);
	}
	for (size_t i = 0; !ret && i < ARRAY_SIZE(boot_fixed); i++) {
		v = opts_get(&opts, boot_fixed[i].key);
		if (v && (!boot_fixed[i].value || strcmp(v, boot_fixed[i].value))) {
			ret = err_set(err, EINVAL, "-boot: %s=%s cannot be had; %s",
				      boot_fixed[i].key, v, boot_fixed[i].why);
		}
	}
	if (!ret) {
		ret = opts_check_used(&opts, err);
	}
	opts_fini(&opts);
	return ret;
}

static int set_uuid(struct vm_config *cfg, const char *option, const char *text,
		    struct err *err)
{
	uint8_t uuid[16];

	if (parse_uuid(text, uuid)) {
		return err_set(err, EINVAL,
			       "%s: '%s' is not of the form "
			       "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
			       option, text);
	}
	if (cfg->uuid_set && memcmp(cfg->uuid, uuid, sizeof(uuid))) {
		return err_set(err, EINVAL,
			       "%s: '%s' contradicts another UUID that is given; -uuid "
			       "and -smbios type=1,uuid= are the same",
			       option, text);
	}
	memcpy(cfg->uuid, uuid, sizeof(uuid));
	cfg->uuid_set = true;
	return 0;
}

int cli_set_uuid(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	return set_uuid(c->cfg, "-uuid", arg, err);
}

int cli_set_smbios(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	struct opts opts;
	bool system = false;
	int ret = opts_parse_lists(&opts, "-smbios", arg, NULL, smbios_list_keys, err);

	if (ret) {
		return ret;
	}
	for (size_t i = 0; i < opts.count; i++) {
		system |= !strcmp(opts.opt[i].key, "type") && !strcmp(opts.opt[i].value, "1");
	}
	for (size_t i = 0; !ret && system && i < opts.count; i++) {
		if (!strcmp(opts.opt[i].key, "uuid")) {
			ret = set_uuid(c->cfg, "-smbios type=1", opts.opt[i].value, err);
		}
	}
	if (ret) {
		opts_fini(&opts);
		return ret;
	}
	return cli_list_push(&c->cfg->smbios, &opts, "-smbios", err);
}
