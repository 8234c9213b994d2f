/*
 * The guest's RAM: which back ends it is, and where they stand in its address space.
 *
 * RAM is one list of parts, in order: the memory of each -numa node, or the back end that
 * -machine memory-backend= names, or one that -m, -mem-path and -mem-prealloc imply. The list
 * fills the guest's two ranges of RAM from below, so at most one part is cut in two. A part is
 * mapped as a whole: both pieces have the right offset within a huge page, because the ranges
 * begin at multiples of one.
 *
 * -object memory-backend-… is read with the other objects and opened here, whether it is used
 * or not, as in QEMU. All of it before isolation, on the control loop. Nothing is untrusted.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "machine/machine_int.h"
#include "machine/memory.h"

/* As -m says (control/cli_memory.c). */
#define MIN_RAM (16 * MiB)

struct named_mem *memory_find(struct memory *mem, const char *id)
{
	for (size_t i = 0; i < mem->count; i++) {
		if (mem->object[i].id && !strcmp(mem->object[i].id, id)) {
			return &mem->object[i];
		}
	}
	return NULL;
}

static struct named_mem *object_new(struct memory *mem, const char *id, struct err *err)
{
	struct named_mem *list = reallocarray(mem->object, mem->count + 1, sizeof(*list));

	if (list) {
		mem->object = list;
		list[mem->count] = (struct named_mem){.id = strdup(id)};
	}
	if (!list || !list[mem->count].id) {
		err_set(err, ENOMEM, "-object memory-backend: out of memory");
		return NULL;
	}
	return &list[mem->count++];
}

int memory_object(struct memory *mem, struct opts *o, const char *id,
		  enum mem_backend_kind kind, struct err *err)
{
	struct named_mem *n = object_new(mem, id, err);

	return n ? mem_backend_parse(o, id, kind, &n->config, err) : -ENOMEM;
}

/* The back end of a machine that names none. It is not reserved: what the guest never touches
 * costs nothing, on a host of any size. */
static int implicit(struct memory *mem, const struct vm_config *cfg, struct err *err)
{
	struct named_mem *n = object_new(mem, "", err);

	if (!n) {
		return -ENOMEM;
	}
	n->config = (struct mem_backend_config){
		.kind = cfg->mem_path ? MEM_BACKEND_FILE : MEM_BACKEND_RAM,
		.size = cfg->ram,
		.prealloc = cfg->mem_prealloc,
		.prealloc_threads = cfg->cpus,
		.path = cfg->mem_path ? strdup(cfg->mem_path) : NULL,
	};
	if (asprintf(&n->config.what, "-m %lluM", (unsigned long long)(cfg->ram / MiB)) < 0) {
		n->config.what = NULL;
	}
	if (!n->config.what || !n->config.path != !cfg->mem_path) {
		return err_set(err, ENOMEM, "-m: out of memory");
	}
	return 0;
}

/* --- which parts --- */

static int part_add(struct memory *mem, const char *option, const char *id, unsigned node,
		    struct err *err)
{
	struct named_mem *n = memory_find(mem, id);

	if (!n) {
		return err_set(err, ENOENT,
			       "%s=%s: there is no such back end; add -object "
			       "memory-backend-ram,id=%s,size=…",
			       option, id, id);
	}
	mem->part[mem->nparts++] = (struct memory_part){n, node};
	return 0;
}

static int choose_parts(struct memory *mem, const struct vm_config *cfg, struct err *err)
{
	char option[48];
	int ret = 0;

	if ((cfg->mem_path || cfg->mem_prealloc) && (cfg->memory_backend || mem->numa.nodes)) {
		return err_set(err, EINVAL,
			       "-mem-path and -mem-prealloc are for a machine without back "
			       "ends; say mem-path= and prealloc= of the -object instead");
	}
	if (cfg->memory_backend && mem->numa.nodes) {
		return err_set(
			err, EINVAL,
			"-machine memory-backend=%s and -numa node,memdev= both say what "
			"the memory is; keep one",
			cfg->memory_backend);
	}
	if (cfg->memory_backend) {
		return part_add(mem, "-machine memory-backend", cfg->memory_backend, 0, err);
	}
	for (unsigned i = 0; !ret && i < mem->numa.nodes; i++) {
		if (mem->numa.node[i].memdev) {
			snprintf(option, sizeof(option), "-numa node,nodeid=%u: memdev", i);
			ret = part_add(mem, option, mem->numa.node[i].memdev, i, err);
		}
	}
	if (!ret && !mem->numa.nodes) {
		ret = implicit(mem, cfg, err);
		ret = ret ? ret : part_add(mem, "-m", "", 0, err);
	}
	return ret;
}

static int add_up(struct memory *mem, const struct vm_config *cfg, struct err *err)
{
	mem->size = 0;
	for (unsigned i = 0; i < mem->nparts; i++) {
		if (u64_add(mem->size, mem->part[i].backend->config.size, &mem->size)) {
			mem->size = UINT64_MAX;
		}
	}
	if (cfg->ram_set && mem->size != cfg->ram) {
		return err_set(err, EINVAL,
			       "-m: %llu bytes, but the memory back ends have %llu; make them "
			       "equal, or leave -m out",
			       (unsigned long long)cfg->ram, (unsigned long long)mem->size);
	}
	if (mem->size < MIN_RAM || mem->size > CONFIG_MAX_RAM) {
		return err_set(
			err, EINVAL,
			"the memory back ends have %llu bytes; a machine has from 16 MiB "
			"to 64 TiB",
			(unsigned long long)mem->size);
	}
	return 0;
}

/* --- where they stand --- */

unsigned memory_layout(const uint64_t *size, unsigned n, uint64_t low_max, uint64_t high_base,
		       struct memory_piece *out)
{
	uint64_t done = 0; /* of all parts together */
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t low = done < low_max ? MIN(size[i], low_max - done) : 0;

		if (low) {
			out[count++] = (struct memory_piece){i, done, 0, low};
		}
		if (size[i] > low) {
			out[count++] = (struct memory_piece){
				i,
				high_base + (done + low - low_max),
				low,
				size[i] - low,
			};
		}
		done += size[i];
	}
	return count;
}

static int place(struct memory *mem, struct mem *m, uint64_t low_max, uint64_t high_base,
		 struct err *err)
{
	struct memory_piece piece[MEMORY_MAX_PARTS + 1];
	uint64_t size[MEMORY_MAX_PARTS];
	int ret = 0;

	for (unsigned i = 0; i < mem->nparts; i++) {
		size[i] = mem->part[i].backend->config.size;
	}
	mem->nmap = memory_layout(size, mem->nparts, low_max, high_base, piece);
	for (unsigned i = 0; !ret && i < mem->nmap; i++) {
		const struct memory_piece *p = &piece[i];
		const struct memory_part *part = &mem->part[p->part];
		struct mem_backend *b = &part->backend->open;
		const char *half = p->gpa < low_max ? "low" : "high";
		struct mem_region *r;
		char name[32];

		if (!b->host) {
			ret = mem_backend_open(&part->backend->config, p->gpa, b, err);
		}
		snprintf(name, sizeof(name), "ram-%s", half);
		if (mem->numa.nodes) {
			snprintf(name, sizeof(name), "node%u-%s", part->node, half);
		}
		if (!ret) {
			ret = mem_region_add_host(m, name, p->gpa, p->size,
						  (uint8_t *)b->host + p->offset, MEM_RAM, 0, &r,
						  err);
			if (ret) { /* KVM has its own limits, of a slot and of all memory */
				struct err why = *err;

				err_set(err, -ret, "%s: %s; ask for less",
					part->backend->config.what, why.msg);
			}
		}
		mem->map[i] = (struct acpi_numa_mem){p->gpa, p->size, part->node};
	}
	mem->low = MIN(mem->size, low_max);
	mem->high = mem->size - mem->low;
	return ret;
}

static void describe(struct memory *mem, const struct vm_config *cfg)
{
	const struct numa *n = &mem->numa;

	mem->acpi = (struct acpi_numa){
		.nodes = n->nodes,
		.mem = mem->map,
		.nmem = mem->nmap,
		.distance = n->have_distance ? n->distance : NULL,
		.hmat = cfg->hmat,
		.lb = n->lb,
		.nlb = n->nlb,
		.cache = n->cache,
		.ncache = n->ncache,
	};
	for (unsigned i = 0; i < n->nodes; i++) {
		mem->acpi.initiator[i] = n->node[i].has_cpu;
		mem->acpi.nearest[i] =
			n->node[i].initiator < 0 ? 0 : (uint32_t)n->node[i].initiator;
	}
}

int memory_open(struct memory *mem, const struct vm_config *cfg, struct mem *m,
		uint64_t low_max, uint64_t high_base, struct err *err)
{
	int ret = numa_resolve(cfg, &mem->numa, err);

	ret = ret ? ret : choose_parts(mem, cfg, err);
	ret = ret ? ret : add_up(mem, cfg, err);
	ret = ret ? ret : place(mem, m, low_max, high_base, err);
	for (size_t i = 0; !ret && i < mem->count; i++) {
		if (!mem->object[i].open.host) {
			ret = mem_backend_open(&mem->object[i].config, 0, &mem->object[i].open,
					       err);
		}
	}
	if (!ret) {
		describe(mem, cfg);
	}
	return ret;
}

unsigned memory_cpu_node(const struct memory *mem, unsigned cpu)
{
	return mem->numa.nodes ? (unsigned)mem->numa.cpu_node[cpu] : 0;
}

const struct acpi_numa *memory_acpi(const struct memory *mem)
{
	return mem->numa.nodes ? &mem->acpi : NULL;
}

void memory_close(struct memory *mem)
{
	for (size_t i = 0; i < mem->count; i++) {
		mem_backend_close(&mem->object[i].open);
		mem_backend_config_fini(&mem->object[i].config);
		free(mem->object[i].id);
	}
	free(mem->object);
	numa_fini(&mem->numa);
	*mem = (struct memory){0};
}
