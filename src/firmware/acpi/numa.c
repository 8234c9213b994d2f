/*
 * SRAT (ACPI 6.5, 5.2.16), SLIT (5.2.17) and HMAT (5.2.28): which processors and memory belong
 * together, and how far it is from one to the other.
 *
 * The HMAT gives each latency and bandwidth as a 16-bit multiple of a unit. The unit here is the
 * greatest common divisor of the values of a structure, so that what the guest computes is what
 * the operator wrote; values that have none are refused where they are read. Pure functions.
 */
#include "base/util.h"
#include "firmware/acpi/acpi_int.h"
#include "spec/acpi.h"

void acpi_srat_memory(struct aml *a, uint64_t base, uint64_t size, uint32_t node)
{
	struct acpi_srat_memory e = {
		.type = ACPI_SRAT_MEMORY,
		.length = sizeof(e),
		.domain = le32_of(node),
		.base = le64_of(base),
		.size = le64_of(size),
		.flags = le32_of(ACPI_SRAT_ENABLED),
	};

	aml_bytes(a, &e, sizeof(e));
}

void acpi_srat_body(struct aml *a, const struct acpi_facts *f)
{
	le32 one = le32_of(1);

	aml_bytes(a, &one, sizeof(one)); /* reserved, 1 */
	aml_zeros(a, 8);
	for (unsigned i = 0; i < f->ncpus; i++) {
		acpi_srat_cpu(a, i, &f->cpu[i]);
	}
	for (unsigned i = 0; i < f->numa->nmem; i++) {
		const struct acpi_numa_mem *m = &f->numa->mem[i];

		acpi_srat_memory(a, m->base, m->size, m->node);
	}
	acpi_srat_firmware(a);
}

void acpi_slit_body(struct aml *a, const struct acpi_facts *f)
{
	aml_u64(a, f->numa->nodes);
	aml_bytes(a, f->numa->distance, (size_t)f->numa->nodes * f->numa->nodes);
}

/* --- HMAT --- */

static uint64_t gcd(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t t = a % b;

		a = b;
		b = t;
	}
	return a;
}

uint64_t acpi_hmat_unit(const struct acpi_hmat_lb *lb, unsigned nlb, enum acpi_hmat_level level,
			enum acpi_hmat_type type)
{
	uint64_t unit = 0, max = 0;

	for (unsigned i = 0; i < nlb; i++) {
		if (lb[i].level == level && lb[i].type == type) {
			unit = gcd(lb[i].value, unit);
			max = MAX(max, lb[i].value);
		}
	}
	return unit && max / unit <= ACPI_HMAT_MAX_ENTRY ? unit : 0;
}

static void hmat_domains(struct aml *a, const struct acpi_numa *n)
{
	for (unsigned i = 0; i < n->nodes; i++) {
		struct acpi_hmat_domain e = {
			.type = le16_of(ACPI_HMAT_DOMAIN),
			.length = le32_of(sizeof(e)),
			.flags = le16_of(ACPI_HMAT_INITIATOR_VALID),
			.initiator = le32_of(n->nearest[i]),
			.memory = le32_of(i),
		};

		aml_bytes(a, &e, sizeof(e));
	}
}

/* The matrix of initiators (rows) and all nodes; 0 where nothing was said. */
static void hmat_matrix(struct aml *a, const struct acpi_numa *n, enum acpi_hmat_level level,
			enum acpi_hmat_type type, uint64_t unit)
{
	uint16_t entry[ACPI_MAX_NODES][ACPI_MAX_NODES] = {0};

	for (unsigned i = 0; i < n->nlb; i++) {
		const struct acpi_hmat_lb *l = &n->lb[i];

		if (l->level == level && l->type == type) {
			entry[l->initiator][l->target] = (uint16_t)(l->value / unit);
		}
	}
	for (unsigned i = 0; i < n->nodes; i++) {
		for (unsigned t = 0; n->initiator[i] && t < n->nodes; t++) {
			le16 v = le16_of(entry[i][t]);

			aml_bytes(a, &v, sizeof(v));
		}
	}
}

static void hmat_lb(struct aml *a, const struct acpi_numa *n, enum acpi_hmat_level level,
		    enum acpi_hmat_type type)
{
	uint64_t unit = acpi_hmat_unit(n->lb, n->nlb, level, type);
	unsigned initiators = 0;
	struct acpi_hmat_lb_header h = {
		.type = le16_of(ACPI_HMAT_LB),
		.flags = (uint8_t)level,
		.data_type = (uint8_t)type,
		.targets = le32_of(n->nodes),
		.unit = le64_of(unit),
	};

	if (!unit) {
		return; /* no value of this kind */
	}
	for (unsigned i = 0; i < n->nodes; i++) {
		initiators += n->initiator[i];
	}
	h.initiators = le32_of(initiators);
	h.length = le32_of((uint32_t)(sizeof(h) + 4 * (initiators + n->nodes) +
				      2 * initiators * n->nodes));
	aml_bytes(a, &h, sizeof(h));
	for (unsigned i = 0; i < n->nodes; i++) {
		le32 v = le32_of(i);

		if (n->initiator[i]) {
			aml_bytes(a, &v, sizeof(v));
		}
	}
	for (unsigned i = 0; i < n->nodes; i++) {
		le32 v = le32_of(i);

		aml_bytes(a, &v, sizeof(v));
	}
	hmat_matrix(a, n, level, type, unit);
}

static void hmat_caches(struct aml *a, const struct acpi_numa *n)
{
	unsigned levels[ACPI_MAX_NODES] = {0};

	for (unsigned i = 0; i < n->ncache; i++) {
		levels[n->cache[i].node]++;
	}
	for (unsigned i = 0; i < n->ncache; i++) {
		const struct acpi_hmat_cache *c = &n->cache[i];
		struct acpi_hmat_cache_info e = {
			.type = le16_of(ACPI_HMAT_CACHE),
			.length = le32_of(sizeof(e)),
			.memory = le32_of(c->node),
			.size = le64_of(c->size),
			.attributes = le32_of(levels[c->node] | c->level << 4 |
					      c->associativity << 8 | c->policy << 12 |
					      (uint32_t)c->line << 16),
		};

		aml_bytes(a, &e, sizeof(e));
	}
}

void acpi_hmat_body(struct aml *a, const struct acpi_facts *f)
{
	aml_zeros(a, 4); /* reserved */
	hmat_domains(a, f->numa);
	for (int level = 0; level < HMAT_LEVELS; level++) {
		for (int type = 0; type < HMAT_TYPES; type++) {
			hmat_lb(a, f->numa, (enum acpi_hmat_level)level,
				(enum acpi_hmat_type)type);
		}
	}
	hmat_caches(a, f->numa);
}
