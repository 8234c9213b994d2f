/*
 * -device: one row a class, each with the table of its properties and the few lines that make
 * it. Also what -drive if=virtio asks for.
 *
 * Order: root ports first, because the others name their buses; then functions with an address
 * of their own, then the rest (so that nobody takes a slot that is spoken for), at last the
 * ports of a serial controller. The operator is trusted; every refusal names the device.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/block.h"
#include "chardev/chr.h"
#include "block/block.h"
#include "device/virtio/blk.h"
#include "device/virtio/console.h"
#include "device/virtio/net.h"
#include "device/virtio/rng.h"
#include "machine/machine_int.h"
#include "machine/vq_map.h"
#include "net/net.h"
#include "pci/host.h"
#include "virtio/transport/pci.h"

/* Properties of every PCI device, then those of the classes; one structure serves all rows. */
struct props {
	char *driver, *id, *bus, *addr;
	bool multifunction;
	/* virtio over PCI */
	bool disable_legacy, disable_modern, packed;
	uint32_t vectors;
	uint32_t bootindex;
	/* back ends */
	char *drive, *serial, *netdev, *mac, *rng, *chardev, *name, *iothread;
	uint16_t queue_size, rx_queue_size, tx_queue_size, num_queues, mtu;
	uint64_t max_bytes;
	uint32_t period;
	char *werror, *rerror, *write_cache;
	bool share_rw, config_wce;
	bool mq, csum, guest_csum, gso, guest_tso, mrg_rxbuf;
	uint32_t max_ports, nr;
	/* root port */
	uint16_t slot, chassis;
	uint32_t port;
};
#define P(f) offsetof(struct props, f)
#define PCI_PROPS \
	{"driver", OPT_STR, P(driver), .required = true}, {"id", OPT_STR, P(id)}, \
	{"bus", OPT_STR, P(bus)}, {"addr", OPT_STR, P(addr)}, \
	{"multifunction", OPT_BOOL, P(multifunction), .def = "off"}
#define VIRTIO_PROPS \
	PCI_PROPS, {"disable-legacy", OPT_BOOL, P(disable_legacy), .def = "on"}, \
	{"disable-modern", OPT_BOOL, P(disable_modern), .def = "off"}, \
	{"vectors", OPT_U32, P(vectors), 1, 256}, \
	{"packed", OPT_BOOL, P(packed), .def = "off"}
#define BOOT_PROPS {"bootindex", OPT_U32, P(bootindex), 0, INT32_MAX}

static const struct opt_desc props_blk[] = {
	VIRTIO_PROPS,
	BOOT_PROPS,
	{"drive", OPT_STR, P(drive), .required = true},
	{"serial", OPT_STR, P(serial)},
	{"iothread", OPT_STR, P(iothread)},
	{"queue-size", OPT_U16, P(queue_size), 2, VIRTQ_MAX_SIZE, .def = "256"},
	{"num-queues", OPT_U16, P(num_queues), 1, VIRTIO_MAX_QUEUES}, /* as many as vCPUs */
	{"werror", OPT_STR, P(werror)},
	{"rerror", OPT_STR, P(rerror)},
	{"write-cache", OPT_STR, P(write_cache)},
	{"config-wce", OPT_BOOL, P(config_wce), .def = "on"},
	{"share-rw", OPT_BOOL, P(share_rw), .def = "off"},
	{NULL},
};
static const struct opt_desc props_net[] = {
	VIRTIO_PROPS,
	BOOT_PROPS,
	{"netdev", OPT_STR, P(netdev), .required = true},
	{"mac", OPT_STR, P(mac)},
	{"iothread", OPT_STR, P(iothread)},
	{"mq", OPT_BOOL, P(mq), .def = "off"},
	{"rx_queue_size", OPT_U16, P(rx_queue_size), 16, VIRTQ_MAX_SIZE, .def = "256"},
	{"tx_queue_size", OPT_U16, P(tx_queue_size), 16, VIRTQ_MAX_SIZE, .def = "256"},
	{"host_mtu", OPT_U16, P(mtu), 68, 65535},
	{"csum", OPT_BOOL, P(csum), .def = "on"},
	{"guest_csum", OPT_BOOL, P(guest_csum), .def = "on"},
	{"gso", OPT_BOOL, P(gso), .def = "on"},
	{"guest_tso4", OPT_BOOL, P(guest_tso), .def = "on"},
	{"mrg_rxbuf", OPT_BOOL, P(mrg_rxbuf), .def = "on"},
	{NULL},
};
static const struct opt_desc props_rng[] = {
	VIRTIO_PROPS,
	{"rng", OPT_STR, P(rng)},
	{"max-bytes", OPT_U64, P(max_bytes), .def = "0"},
	{"period", OPT_U32, P(period), .def = "65536"},
	{NULL},
};
static const struct opt_desc props_serial[] = {
	VIRTIO_PROPS,
	{"max_ports", OPT_U32, P(max_ports), 1, 31}, /* as many as are named */
	{NULL},
};
static const struct opt_desc props_serial_port[] = {
	{"driver", OPT_STR, P(driver), .required = true},
	{"id", OPT_STR, P(id)},
	{"bus", OPT_STR, P(bus)},
	{"chardev", OPT_STR, P(chardev), .required = true},
	{"name", OPT_STR, P(name)},
	{"nr", OPT_U32, P(nr), 0, 30, .def = NULL},
	{NULL},
};
static const struct opt_desc props_root_port[] = {
	PCI_PROPS,
	{"slot", OPT_U16, P(slot), 0, 8191, .def = "0"},
	{"chassis", OPT_U16, P(chassis), 0, 255, .def = "0"},
	{"port", OPT_U32, P(port), 0, 255, .def = "0"},
	{NULL},
};
#undef P

/* Everything that makes one device: its row, its properties and where it goes. */
struct making {
	struct machine *m;
	const struct props *p;
	struct vq_map map; /* iothread-vq-mapping */
	const char *id;
	struct pci_bus *bus;
	int devfn;
	struct err *err;
};

static int fail(struct making *k, int e, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int fail(struct making *k, int e, const char *fmt, ...)
{
	char text[384];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(k->err, e, "-device %s,id=%s: %s", k->p->driver, k->id, text);
}

static int put_on_bus(struct making *k, struct virtio_dev *vd)
{
	struct virtio_pci_config c = {
		.id = k->id, .bus = k->bus, .devfn = k->devfn, .vectors = k->p->vectors,
		.multifunction = k->p->multifunction,
	};
	struct device *d;

	if (k->p->packed) {
		virtio_offer_packed(vd);
	}
	return virtio_pci_new(&k->m->vm, vd, &c, &d, k->err);
}

static int put_on_bus_bootable(struct making *k, struct virtio_dev *vd, enum boot_kind kind)
{
	int ret = put_on_bus(k, vd);

	return ret ? ret : bootorder_add(&k->m->bootorder, k->id, kind, k->p->bootindex, k->err);
}

static int find_loop(struct making *k, struct loop **out)
{
	*out = NULL;
	if (!k->p->iothread) {
		return 0;
	}
	if (k->map.count) {
		return fail(k, EINVAL, "iothread= and iothread-vq-mapping exclude each other");
	}
	*out = backends_io(&k->m->be, k->p->iothread);
	return *out ? 0 : fail(k, ENOENT, "there is no -object iothread,id=%s", k->p->iothread);
}

/* The loops of n queues, or pairs of queues, from iothread-vq-mapping; *out NULL without. */
static int find_loops(struct making *k, struct loop *loops[VIRTIO_MAX_QUEUES], unsigned n,
		      bool pairs, struct loop *const **out)
{
	struct err why = {0};
	int ret = vq_map_loops(&k->map, &k->m->be, n, pairs, loops, &why);

	*out = k->map.count ? loops : NULL;
	return ret ? fail(k, -ret, "%s", why.msg) : 0;
}

/* The device's own word counts, then that of its -drive, then QEMU's default. */
static int error_policy(struct making *k, const char *key, const char *text, int of_drive,
			enum virtio_blk_policy *out)
{
	bool read = key[0] == 'r';
	int p = of_drive >= 0 ? of_drive : read ? VIRTIO_BLK_REPORT : VIRTIO_BLK_ENOSPC;

	if (text && strcmp(text, "auto")) {
		p = drives_policy(text, read);
	}
	*out = (enum virtio_blk_policy)p;
	return p < 0 ? fail(k, EINVAL, "%s=%s cannot be had; there are auto, report, ignore%s stop%s",
			    key, text, read ? " and" : ",", read ? "" : " and enospc")
		     : 0;
}

static int write_cache(struct making *k, bool of_drive, bool *through)
{
	const char *text = k->p->write_cache;
	bool on;

	*through = of_drive;
	if (!text || !strcmp(text, "auto")) {
		return 0;
	}
	if (parse_bool(text, &on)) {
		return fail(k, EINVAL, "write-cache=%s is none of on, off and auto", text);
	}
	*through = !on;
	return 0;
}

/* drive=: a -drive, which has one device, or any node. */
static int find_disk(struct making *k, struct named_blk **drive, struct blk_node **node)
{
	struct named_blk *b = drives_find(&k->m->be, k->p->drive);

	*drive = b && b->drive ? b : NULL;
	*node = b ? b->node : blk_find(k->m->be.graph, k->p->drive);
	if (!*node) {
		return fail(k, ENOENT, "there is no -drive id=%s and no -blockdev node-name=%s",
			    k->p->drive, k->p->drive);
	}
	if (b && b->drive && b->used) {
		return fail(k, EBUSY, "drive=%s is used by another device already", k->p->drive);
	}
	return 0;
}

static int make_blk(struct making *k)
{
	struct virtio_blk_config c = {
		.queue_size = k->p->queue_size,
		.num_queues = k->p->num_queues
				      ? k->p->num_queues
				      : (uint16_t)MIN(k->m->cfg->cpus, VIRTIO_MAX_QUEUES),
		.share_rw = k->p->share_rw,
		.no_config_wce = !k->p->config_wce,
		.error = disk_errors_add,
		.error_opaque = k->m->be.disk_errors,
	};
	struct loop *loops[VIRTIO_MAX_QUEUES];
	struct named_blk *b;
	struct blk_node *node;
	struct virtio_dev *vd;
	int ret = find_disk(k, &b, &node);

	ret = ret ? ret : error_policy(k, "werror", k->p->werror, b ? b->werror : -1, &c.werror);
	ret = ret ? ret : error_policy(k, "rerror", k->p->rerror, b ? b->rerror : -1, &c.rerror);
	ret = ret ? ret : write_cache(k, b && b->write_through, &c.write_through);
	ret = ret ? ret : find_loop(k, &c.loop);
	ret = ret ? ret : find_loops(k, loops, c.num_queues, false, &c.queue_loop);
	if (ret) {
		return ret;
	}
	c.serial = k->p->serial ? k->p->serial : b ? b->serial : NULL;
	ret = virtio_blk_new(&k->m->vm, node, &c, k->id, &vd, k->err);
	if (ret) {
		return ret;
	}
	if (b) {
		b->used = true;
	}
	return put_on_bus_bootable(k, vd, BOOT_DISK);
}

static int parse_mac(const char *text, uint8_t mac[6])
{
	int n = 0;

	if (sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2],
		   &mac[3], &mac[4], &mac[5], &n) != 6 || text[n] || mac[0] & 1) {
		return -EINVAL;
	}
	return 0;
}

static int make_net(struct making *k)
{
	struct net_port *port = backends_net(&k->m->be, k->p->netdev);
	struct virtio_net_config c = {
		.rx_queue_size = k->p->rx_queue_size, .tx_queue_size = k->p->tx_queue_size,
		.mtu = k->p->mtu, .csum = k->p->csum, .guest_csum = k->p->guest_csum,
		.gso = k->p->gso, .guest_tso = k->p->guest_tso, .mrg_rxbuf = k->p->mrg_rxbuf,
		.mq = k->p->mq,
	};
	struct loop *loops[VIRTIO_MAX_QUEUES];
	struct virtio_dev *vd;
	int ret;

	if (!port) {
		return fail(k, ENOENT, "there is no -netdev with id=%s", k->p->netdev);
	}
	if (port->claimed) {
		return fail(k, EBUSY, "netdev=%s is used by another device already", k->p->netdev);
	}
	if (k->p->mac && parse_mac(k->p->mac, c.mac)) {
		return fail(k, EINVAL, "mac=%s is not a unicast address of the form 52:54:00:12:34:56",
			    k->p->mac);
	}
	c.mac_set = k->p->mac != NULL;
	ret = find_loop(k, &c.loop);
	if (!ret) {
		unsigned pairs = c.mq ? MIN(port->nmore + 1, VIRTIO_MAX_QUEUES) : 1;

		ret = find_loops(k, loops, pairs, true, &c.pair_loop);
	}
	if (!ret) {
		ret = virtio_net_new(&k->m->vm, port, &c, k->id, &vd, k->err);
	}
	return ret ? ret : put_on_bus_bootable(k, vd, BOOT_NET);
}

static int make_rng(struct making *k)
{
	struct virtio_rng_config c = {
		.max_bytes = k->p->max_bytes, .period_ms = k->p->period,
	};
	struct virtio_dev *vd;
	int ret;

	if (k->p->rng) {
		struct named_rng *r = backends_rng(&k->m->be, k->p->rng);

		if (!r) {
			return fail(k, ENOENT, "there is no -object rng-builtin or rng-random with id=%s",
				    k->p->rng);
		}
		c.filename = r->path;
	}
	ret = virtio_rng_new(&k->m->vm, &c, k->id, &vd, k->err);
	return ret ? ret : put_on_bus(k, vd);
}

/*
 * Ports that a controller gets when max_ports does not say: room for all that the command line
 * has. Each is two queues and a vector, for which a driver leaves the guest some 35 times while
 * it starts, used or not.
 */
static uint32_t serial_ports(const struct machine *m)
{
	const struct config_list *l = &m->cfg->devices;
	uint32_t count = 0, end = 1;
	bool named = false;

	for (size_t i = 0; i < l->count; i++) {
		const char *driver = opts_get(&l->item[i].opts, "driver"), *nr;
		bool port = !strcmp(driver, "virtserialport");

		if (port || !strcmp(driver, "virtconsole")) {
			nr = opts_get(&l->item[i].opts, "nr");
			/* what is no number is refused when the port is made */
			end = nr ? MAX(end, MIN(strtoul(nr, NULL, 0), 30) + 1) : end;
			named |= port;
			count++;
		}
	}
	/* number 0 is for a console and stays free without one */
	return MIN(MAX(count + named, end), VIRTIO_SERIAL_MAX_PORTS);
}

static int make_serial(struct making *k)
{
	struct virtio_serial_config c = {
		.max_ports = k->p->max_ports ? k->p->max_ports : serial_ports(k->m),
	};
	struct virtio_dev *vd;
	struct named_serial *s;
	int ret;

	ret = virtio_serial_new(&k->m->vm, &c, k->id, &vd, k->err);
	if (ret) {
		return ret;
	}
	s = realloc(k->m->serials, (k->m->nserials + 1) * sizeof(*s));
	if (!s) {
		vd->ops->destroy(vd);
		return fail(k, ENOMEM, "out of memory");
	}
	k->m->serials = s;
	s[k->m->nserials].vd = vd;
	snprintf(s[k->m->nserials].id, sizeof(s->id), "%s", k->id);
	k->m->nserials++;
	ret = put_on_bus(k, vd);
	if (ret) {
		k->m->nserials--;
	}
	return ret;
}

/* bus=ID.0 names a controller; without it the first one is meant. */
static int make_serial_port(struct making *k)
{
	struct virtio_port_config c = {
		.name = k->p->name, .nr = k->p->nr,
		.console = !strcmp(k->p->driver, "virtconsole"),
	};
	struct machine *m = k->m;
	struct named_serial *s = NULL;

	for (unsigned i = 0; i < m->nserials && !s; i++) {
		size_t n = strlen(m->serials[i].id);

		if (!k->p->bus || (!strncmp(k->p->bus, m->serials[i].id, n) &&
				   !strcmp(k->p->bus + n, ".0"))) {
			s = &m->serials[i];
		}
	}
	if (!s) {
		return fail(k, ENOENT, "there is no -device virtio-serial-pci for it%s%s",
			    k->p->bus ? " called " : "", k->p->bus ? k->p->bus : "");
	}
	c.chr = backends_chr(&m->be, k->p->chardev);
	if (!c.chr) {
		return fail(k, ENOENT, "there is no -chardev with id=%s", k->p->chardev);
	}
	return virtio_serial_add_port(s->vd, &c, k->err);
}

static int make_root_port(struct making *k)
{
	struct pcie_root_port_config c = {
		.id = k->id, .devfn = k->devfn, .slot = k->p->slot,
		.chassis = (uint8_t)k->p->chassis, .multifunction = k->p->multifunction,
	};
	struct pci_bus *secondary;

	if (k->bus != k->m->root) {
		return fail(k, EINVAL, "a root port sits on the root bus pcie.0, not on %s", k->bus->name);
	}
	return pcie_root_port_new(&k->m->vm, k->bus, &c, &secondary, k->err);
}

enum pass { PASS_PORTS, PASS_FUNCTIONS, PASS_SERIAL_PORTS };
static const struct device_class {
	const char *name, *alias;
	enum pass pass;
	const struct opt_desc *props;
	int (*make)(struct making *k);
	const char *doc;
	bool mapping; /* iothread-vq-mapping */
} classes[] = {
	{"pcie-root-port", NULL, PASS_PORTS, props_root_port, make_root_port,
	 "PCI Express root port with one slot"},
	{"virtio-blk-pci", "virtio-blk-pci-non-transitional", PASS_FUNCTIONS, props_blk, make_blk,
	 "disk", .mapping = true},
	{"virtio-net-pci", "virtio-net-pci-non-transitional", PASS_FUNCTIONS, props_net, make_net,
	 "network card", .mapping = true},
	{"virtio-rng-pci", "virtio-rng-pci-non-transitional", PASS_FUNCTIONS, props_rng, make_rng,
	 "random numbers"},
	{"virtio-serial-pci", "virtio-serial-pci-non-transitional", PASS_FUNCTIONS, props_serial,
	 make_serial, "controller of consoles and ports"},
	{"virtconsole", NULL, PASS_SERIAL_PORTS, props_serial_port, make_serial_port,
	 "console (hvc) of a virtio-serial-pci"},
	{"virtserialport", NULL, PASS_SERIAL_PORTS, props_serial_port, make_serial_port,
	 "named port of a virtio-serial-pci"},
};

const char *device_class_name(unsigned i)
{
	return i < ARRAY_SIZE(classes) ? classes[i].name : NULL;
}

static const struct device_class *find_class(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
		if (!strcmp(classes[i].name, name) ||
		    (classes[i].alias && !strcmp(classes[i].alias, name))) {
			return &classes[i];
		}
	}
	return NULL;
}

static int locate(struct making *k)
{
	int ret;

	k->bus = k->m->root;
	if (k->p->bus) {
		k->bus = pci_bus_by_name(k->m->root, k->p->bus);
		if (!k->bus) {
			return fail(k, ENOENT, "there is no bus '%s'; there are pcie.0 and the ids of the "
				    "root ports", k->p->bus);
		}
	}
	ret = pci_parse_addr(k->p->addr, &k->devfn, k->err);
	if (ret) {
		err_prefix(k->err, "-device %s,id=%s", k->p->driver, k->id);
	}
	return ret;
}

const char *machine_device_class(unsigned i, const char **doc)
{
	if (i >= ARRAY_SIZE(classes)) {
		return NULL;
	}
	*doc = classes[i].doc;
	return classes[i].name;
}

static int make_device(struct machine *m, const struct device_class *c, struct opts *o,
		       struct err *err)
{
	struct props p = {.nr = UINT32_MAX, .bootindex = BOOTINDEX_NONE};
	struct making k = {.m = m, .p = &p, .err = err};
	char id[64];
	int ret;

	ret = c->mapping ? vq_map_take(&k.map, o, err) : 0;
	if (!ret) {
		ret = opts_read(o, c->props, &p, err);
	}
	if (ret) {
		err_prefix(err, "-device %s", c->name);
		goto free_props;
	}
	if (p.id && strlen(p.id) >= sizeof(id)) {
		ret = err_set(err, EINVAL, "-device %s: the id '%s' is longer than 63 characters",
			      c->name, p.id);
		goto free_props;
	}
	snprintf(id, sizeof(id), "%s", p.id ? p.id : "");
	if (!p.id) {
		snprintf(id, sizeof(id), "%s#%u", c->name, m->anonymous++);
	}
	k.id = id;
	if (p.disable_modern) {
		ret = fail(&k, EINVAL, "disable-modern=on cannot be had; devices are modern only");
	}
	if (!ret && c->pass != PASS_SERIAL_PORTS) {
		ret = locate(&k);
	}
	if (!ret) {
		ret = c->make(&k);
	}
free_props:
	opts_free_struct(c->props, &p);
	return ret;
}

/* -drive if=virtio: a disk as if -device virtio-blk-pci,drive=… had been said. */
static int make_implicit_disks(struct machine *m, struct err *err)
{
	for (size_t i = 0; i < m->be.nblk; i++) {
		struct named_blk *b = &m->be.blk[i];
		struct opts o = {.what = "-drive"};
		int ret;

		if (!b->implicit) {
			continue;
		}
		ret = opts_add(&o, "driver", "virtio-blk-pci", err);
		if (!ret) {
			ret = opts_add(&o, "drive", b->id, err);
		}
		if (!ret) {
			ret = make_device(m, find_class("virtio-blk-pci"), &o, err);
			if (ret) {
				backends_name_option(err, "-drive");
			}
		}
		opts_fini(&o);
		if (ret) {
			return ret;
		}
	}
	return 0;
}

int devices_create(struct machine *m, struct err *err)
{
	const struct config_list *l = &m->cfg->devices;

	for (size_t i = 0; i < l->count; i++) {
		const char *driver = opts_get(&l->item[i].opts, "driver");

		if (!driver || !find_class(driver)) {
			return err_set(err, EINVAL, "-device: unknown device '%s'; -device help lists what "
				       "there is", driver ? driver : "");
		}
	}
	for (int round = 0; round < 4; round++) { /* ports, fixed addresses, the rest, serial ports */
		static const enum pass pass[] = {PASS_PORTS, PASS_FUNCTIONS, PASS_FUNCTIONS,
						 PASS_SERIAL_PORTS};

		if (round == 2) {
			int ret = make_implicit_disks(m, err);

			if (ret) {
				return ret;
			}
		}
		for (size_t i = 0; i < l->count; i++) {
			struct opts *o = &l->item[i].opts;
			const struct device_class *c = find_class(opts_get(o, "driver"));
			bool fixed = opts_get(o, "addr") != NULL;
			int ret;

			if (c->pass != pass[round] ||
			    (pass[round] == PASS_FUNCTIONS && fixed != (round == 1))) {
				continue;
			}
			ret = make_device(m, c, o, err);
			if (ret) {
				if (strncmp(err->msg, "-device", 7)) {
					err_prefix(err, "-device %s", c->name);
				}
				return ret;
			}
		}
	}
	return 0;
}
