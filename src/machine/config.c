/* Start and end of a struct vm_config; what the fields mean is in config.h. */
#include "machine/config.h"

#include <stdlib.h>
#include <string.h>

void vm_config_init(struct vm_config *c)
{
	memset(c, 0, sizeof(*c));
}

static void list_fini(struct config_list *l)
{
	for (size_t i = 0; i < l->count; i++) {
		opts_fini(&l->item[i].opts);
	}
	free(l->item);
}

static void texts_fini(char **t, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(t[i]);
	}
	free(t);
}

void vm_config_fini(struct vm_config *c)
{
	free(c->machine_name);
	free(c->name);
	free(c->cpu);
	free(c->kernel);
	free(c->initrd);
	free(c->append);
	free(c->bios);
	free(c->pidfile);
	list_fini(&c->drives);
	list_fini(&c->blockdevs);
	list_fini(&c->devices);
	list_fini(&c->netdevs);
	list_fini(&c->chardevs);
	list_fini(&c->objects);
	list_fini(&c->fw_cfgs);
	texts_fini(c->serial, c->nserial);
	texts_fini(c->qmp, c->nqmp);
	memset(c, 0, sizeof(*c));
}
