/*
 * The properties of memory-backend-ram, -memfd and -file, into struct mem_backend_config.
 *
 * A property of which only one value can be had is accepted with that value and refused with
 * the other, with the reason. What is no property of a kind is refused by opts_read().
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "mem/backend.h"

static const char *const kinds[] = {
	[MEM_BACKEND_RAM] = "memory-backend-ram",
	[MEM_BACKEND_MEMFD] = "memory-backend-memfd",
	[MEM_BACKEND_FILE] = "memory-backend-file",
};

static const char *const policies[] = {
	[MEM_POLICY_DEFAULT] = "default",
	[MEM_POLICY_PREFERRED] = "preferred",
	[MEM_POLICY_BIND] = "bind",
	[MEM_POLICY_INTERLEAVE] = "interleave",
	NULL,
};

bool mem_backend_kind_of(const char *qom_type, enum mem_backend_kind *kind)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (!strcmp(kinds[i], qom_type)) {
			*kind = (enum mem_backend_kind)i;
			return true;
		}
	}
	return false;
}

#define FIELD(f) offsetof(struct mem_backend_config, f)
/* clang-format off */
#define COMMON_ROWS(share_default)                                                             \
	{"size", OPT_SIZE, FIELD(size), .min = 4 * KiB, .required = true},                     \
	{"share", OPT_BOOL, FIELD(share), .def = share_default},                               \
	{"reserve", OPT_BOOL, FIELD(reserve), .def = "on"},                                    \
	{"prealloc", OPT_BOOL, FIELD(prealloc), .def = "off"},                                 \
	{"prealloc-threads", OPT_U32, FIELD(prealloc_threads), .min = 1},                      \
	{"policy", OPT_ENUM, FIELD(policy), .names = policies, .def = "default"}
/* clang-format on */

static const struct opt_desc ram_rows[] = {
	COMMON_ROWS("off"),
	{0},
};
static const struct opt_desc memfd_rows[] = {
	COMMON_ROWS("on"),
	{"hugetlb", OPT_BOOL, FIELD(hugetlb), .def = "off"},
	{"hugetlbsize", OPT_SIZE, FIELD(hugetlbsize), .min = 4 * KiB},
	{"seal", OPT_BOOL, FIELD(seal), .def = "on"},
	{0},
};
static const struct opt_desc file_rows[] = {
	COMMON_ROWS("off"),
	{"mem-path", OPT_STR, FIELD(path), .required = true},
	{"align", OPT_SIZE, FIELD(align), .def = "0"},
	{"discard-data", OPT_BOOL, FIELD(discard_data), .def = "off"},
	{"readonly", OPT_BOOL, FIELD(readonly), .def = "off"},
	{0},
};
static const struct opt_desc *const rows[] = {
	[MEM_BACKEND_RAM] = ram_rows,
	[MEM_BACKEND_MEMFD] = memfd_rows,
	[MEM_BACKEND_FILE] = file_rows,
};

/* Only "off" can be had. */
static const struct {
	const char *key, *why;
	bool file; /* a property of files alone */
} fixed[] = {
	{"merge", "guest memory is never merged with other pages", false},
	{"dump", "guest memory is never part of a core file", false},
	{"x-use-canonical-path-for-ramblock-id", "memory has the same names everywhere", false},
	{"pmem", "there are no NVDIMMs", true},
};

static int read_fixed(struct opts *o, const struct mem_backend_config *c, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
		const char *v;
		bool on;

		if (fixed[i].file && c->kind != MEM_BACKEND_FILE) {
			continue;
		}
		v = opts_get(o, fixed[i].key);
		if (v && (parse_bool(v, &on) || on)) {
			return err_set(err, EINVAL,
				       "%s: %s=%s cannot be had: %s; leave it out or say "
				       "%s=off",
				       c->what, fixed[i].key, v, fixed[i].why, fixed[i].key);
		}
	}
	return 0;
}

static int read_host_nodes(struct opts *o, struct mem_backend_config *c, struct err *err)
{
	const char *v;

	for (unsigned i = 0; (v = opts_get_item(o, "host-nodes", i)); i++) {
		uint64_t first, last;

		if (parse_range(v, MEM_MAX_HOST_NODES - 1, &first, &last)) {
			return err_set(err, EINVAL,
				       "%s: host-nodes=%s is not a node or a range of "
				       "nodes from 0 to %d",
				       c->what, v, MEM_MAX_HOST_NODES - 1);
		}
		for (; first <= last; first++) {
			c->host_nodes[first / 64] |= UINT64_C(1) << first % 64;
		}
	}
	return 0;
}

/* rom: what becomes of readonly=on. A guest's RAM is written, so it cannot be ROM. */
static int check_rom(const struct mem_backend_config *c, const char *rom, struct err *err)
{
	if (rom && strcmp(rom, "auto") && strcmp(rom, "off")) {
		return err_set(err, EINVAL,
			       "%s: rom=%s cannot be had: this is memory that the guest "
			       "writes; leave it out",
			       c->what, rom);
	}
	if (c->readonly && (!rom || strcmp(rom, "off"))) {
		return err_set(
			err, EINVAL,
			"%s: readonly=on alone makes a ROM, and this is memory that "
			"the guest writes; add rom=off for a private copy of what it writes",
			c->what);
	}
	if (c->readonly && (c->share || c->discard_data)) {
		return err_set(err, EINVAL,
			       "%s: readonly=on contradicts share=on and discard-data=on, "
			       "which write to the file",
			       c->what);
	}
	return 0;
}

static int check(const struct mem_backend_config *c, struct err *err)
{
	bool nodes = c->host_nodes[0] || c->host_nodes[1];

	if (c->size % (4 * KiB)) {
		return err_set(err, EINVAL, "%s: size=%llu is not a multiple of 4 KiB", c->what,
			       (unsigned long long)c->size);
	}
	if (nodes && c->policy == MEM_POLICY_DEFAULT) {
		return err_set(err, EINVAL,
			       "%s: host-nodes has no effect with policy=default; say "
			       "policy=bind, preferred or interleave",
			       c->what);
	}
	if (!nodes && c->policy != MEM_POLICY_DEFAULT) {
		return err_set(err, EINVAL, "%s: policy=%s needs host-nodes=", c->what,
			       policies[c->policy]);
	}
	if (c->hugetlbsize && !c->hugetlb) {
		return err_set(err, EINVAL, "%s: hugetlbsize needs hugetlb=on", c->what);
	}
	if (c->hugetlbsize && !is_pow2(c->hugetlbsize)) {
		return err_set(err, EINVAL, "%s: hugetlbsize=%llu is not a power of two",
			       c->what, (unsigned long long)c->hugetlbsize);
	}
	if (c->align && !is_pow2(c->align)) {
		return err_set(err, EINVAL, "%s: align=%llu is not a power of two", c->what,
			       (unsigned long long)c->align);
	}
	if (c->path && !*c->path) {
		return err_set(err, EINVAL, "%s: mem-path is empty", c->what);
	}
	return 0;
}

int mem_backend_parse(struct opts *o, const char *id, enum mem_backend_kind kind,
		      struct mem_backend_config *c, struct err *err)
{
	const char *rom = NULL;
	int ret;

	*c = (struct mem_backend_config){.kind = kind};
	if (asprintf(&c->what, "-object %s,id=%s", kinds[kind], id) < 0) {
		c->what = NULL;
		return err_set(err, ENOMEM, "-object %s: out of memory", kinds[kind]);
	}
	ret = read_fixed(o, c, err);
	ret = ret ? ret : read_host_nodes(o, c, err);
	if (!ret) {
		opts_get(o, "qom-type");
		opts_get(o, "id");
		rom = kind == MEM_BACKEND_FILE ? opts_get(o, "rom") : NULL;
		o->what = c->what;
		ret = opts_read(o, rows[kind], c, err);
		o->what = "-object";
	}
	ret = ret ? ret : check(c, err);
	ret = ret ? ret : check_rom(c, rom, err);
	if (ret) {
		mem_backend_config_fini(c);
	}
	return ret;
}

void mem_backend_config_fini(struct mem_backend_config *c)
{
	free(c->what);
	free(c->path);
	*c = (struct mem_backend_config){0};
}
