/*
 * SRAT, SLIT and HMAT: byte for byte where the specification says so, with processors beyond 254,
 * and judged by iasl, which takes them apart without a complaint.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "firmware/acpi/acpi.h"
#include "spec/acpi.h"

#define CPUS 258u

static struct acpi_cpu cpus[CPUS];
static const struct acpi_numa_mem memory[] = {
	{0, GiB, 0},
	{GiB, GiB, 1},
	{4 * GiB, 512 * GiB, 1},
	{516 * GiB, 4096, 2},
};
static const uint8_t distance[] = {10, 20, 30, 21, 10, 40, 31, 41, 10};
static const struct acpi_hmat_lb lb[] = {
	{HMAT_MEMORY, HMAT_ACCESS_LATENCY, 0, 0, 5000},
	{HMAT_MEMORY, HMAT_ACCESS_LATENCY, 0, 2, 20000},
	{HMAT_MEMORY, HMAT_ACCESS_LATENCY, 1, 2, 15000},
	{HMAT_THIRD_LEVEL, HMAT_WRITE_BANDWIDTH, 1, 0, 3072},
};
static const struct acpi_hmat_cache caches[] = {
	{2, 64 * KiB, 1, 1, 2, 64},
	{2, 2 * MiB, 2, 2, 1, 128},
};

static struct acpi_numa numa_of(void)
{
	return (struct acpi_numa){
		.nodes = 3,
		.mem = memory,
		.nmem = ARRAY_SIZE(memory),
		.distance = distance,
		.hmat = true,
		.initiator = {true, true, false},
		.nearest = {0, 1, 1},
		.lb = lb,
		.nlb = ARRAY_SIZE(lb),
		.cache = caches,
		.ncache = ARRAY_SIZE(caches),
	};
}

static struct acpi_facts facts_of(unsigned ncpus, const struct acpi_numa *n)
{
	for (unsigned i = 0; i < ncpus; i++) {
		cpus[i] = (struct acpi_cpu){.apic_id = i * 2, .present = true, .node = i % 2};
	}
	return (struct acpi_facts){.cpu = cpus, .ncpus = ncpus, .numa = n};
}

/* The body of a table. */
static const uint8_t *find(const struct acpi_tables *t, const char *sig, size_t *len)
{
	const struct acpi_table_ref *r = acpi_find(t, sig);
	uint8_t sum = 0;

	assert_non_null(r);
	for (uint32_t i = 0; i < r->len; i++) {
		sum = (uint8_t)(sum + t->data[r->off + i]);
	}
	assert_int_equal(sum, 0);
	*len = r->len - sizeof(struct acpi_header);
	return t->data + r->off + sizeof(struct acpi_header);
}

static void test_absent(void **state)
{
	struct acpi_numa n = numa_of();
	struct acpi_facts f = facts_of(2, NULL);
	struct acpi_tables t;

	assert_int_equal(acpi_build(&t, &f, NULL), 0);
	assert_null(acpi_find(&t, "SRAT"));
	acpi_free(&t);
	n.distance = NULL;
	n.hmat = false;
	f.numa = &n;
	assert_int_equal(acpi_build(&t, &f, NULL), 0);
	assert_non_null(acpi_find(&t, "SRAT"));
	assert_null(acpi_find(&t, "SLIT"));
	assert_null(acpi_find(&t, "HMAT"));
	acpi_free(&t);
}

static void test_srat(void **state)
{
	struct acpi_numa n = numa_of();
	struct acpi_facts f = facts_of(CPUS, &n);
	struct acpi_srat_lapic short_form;
	struct acpi_srat_x2apic long_form;
	struct acpi_srat_memory m;
	struct acpi_tables t;
	const uint8_t *p;
	size_t len;

	assert_int_equal(acpi_build(&t, &f, NULL), 0);
	p = find(&t, "SRAT", &len);
	/* APIC ids are 0, 2, …: 127 fit into a byte */
	assert_int_equal(len, 12 + 128 * 16 + (CPUS - 128) * 24 + 4 * 40);
	assert_memory_equal(p, "\1\0\0\0\0\0\0\0\0\0\0\0", 12);
	memcpy(&short_form, p + 12 + 127 * 16, sizeof(short_form));
	assert_int_equal(short_form.type, 0);
	assert_int_equal(short_form.length, 16);
	assert_int_equal(short_form.apic_id, 254);
	assert_int_equal(short_form.domain_low, 1);
	assert_int_equal(le32_get(short_form.flags), 1);
	memcpy(&long_form, p + 12 + 128 * 16, sizeof(long_form));
	assert_int_equal(long_form.type, 2);
	assert_int_equal(long_form.length, 24);
	assert_int_equal(le32_get(long_form.x2apic_id), 256);
	assert_int_equal(le32_get(long_form.domain), 0);
	assert_int_equal(le32_get(long_form.flags), 1);
	for (unsigned i = 0; i < ARRAY_SIZE(memory); i++) {
		memcpy(&m, p + len - (ARRAY_SIZE(memory) - i) * 40, sizeof(m));
		assert_int_equal(m.type, 1);
		assert_int_equal(m.length, 40);
		assert_int_equal(le32_get(m.domain), memory[i].node);
		assert_int_equal(le64_get(m.base), memory[i].base);
		assert_int_equal(le64_get(m.size), memory[i].size);
		assert_int_equal(le32_get(m.flags), 1); /* neither pluggable nor volatile */
	}
	acpi_free(&t);
}

static void test_slit(void **state)
{
	struct acpi_numa n = numa_of();
	struct acpi_facts f = facts_of(2, &n);
	struct acpi_tables t;
	const uint8_t *p;
	size_t len;

	assert_int_equal(acpi_build(&t, &f, NULL), 0);
	p = find(&t, "SLIT", &len);
	assert_int_equal(len, 8 + 9);
	assert_memory_equal(p, "\3\0\0\0\0\0\0\0", 8);
	assert_memory_equal(p + 8, distance, 9);
	acpi_free(&t);
}

static void test_hmat(void **state)
{
	static const uint16_t latency[] = {1, 0, 4, 0, 0, 3}; /* of 5000 ps, from 0 and 1 */
	struct acpi_numa n = numa_of();
	struct acpi_facts f = facts_of(2, &n);
	struct acpi_hmat_domain d;
	struct acpi_hmat_lb_header h;
	struct acpi_hmat_cache_info c;
	struct acpi_tables t;
	const uint8_t *p;
	size_t len, one = 32 + 2 * 4 + 3 * 4 + 6 * 2;

	assert_int_equal(acpi_build(&t, &f, NULL), 0);
	p = find(&t, "HMAT", &len);
	assert_int_equal(len, 4 + 3 * 40 + 2 * one + 2 * 32);
	memcpy(&d, p + 4 + 2 * 40, sizeof(d));
	assert_int_equal(le32_get(d.memory), 2);
	assert_int_equal(le32_get(d.initiator), 1);
	assert_int_equal(le16_get(d.flags), 1);

	p += 4 + 3 * 40;
	memcpy(&h, p, sizeof(h));
	assert_int_equal(le16_get(h.type), 1);
	assert_int_equal(le32_get(h.length), one);
	assert_int_equal(h.flags, 0);
	assert_int_equal(h.data_type, 0);
	assert_int_equal(le32_get(h.initiators), 2);
	assert_int_equal(le32_get(h.targets), 3);
	assert_int_equal(le64_get(h.unit), 5000);
	assert_memory_equal(p + 32,
			    "\0\0\0\0\1\0\0\0"
			    "\0\0\0\0\1\0\0\0\2\0\0\0",
			    20);
	assert_memory_equal(p + 52, latency, sizeof(latency));
	memcpy(&h, p + one, sizeof(h));
	assert_int_equal(h.flags, 3);
	assert_int_equal(h.data_type, 5);
	assert_int_equal(le64_get(h.unit), 3072);

	memcpy(&c, p + 2 * one + 32, sizeof(c));
	assert_int_equal(le16_get(c.type), 2);
	assert_int_equal(le32_get(c.memory), 2);
	assert_int_equal(le64_get(c.size), 2 * MiB);
	assert_int_equal(le32_get(c.attributes), 128u << 16 | 1 << 12 | 2 << 8 | 2 << 4 | 2);
	acpi_free(&t);
}

static void test_unit(void **state)
{
	struct acpi_hmat_lb v[] = {
		{HMAT_MEMORY, HMAT_READ_LATENCY, 0, 0, 65534},
		{HMAT_MEMORY, HMAT_READ_LATENCY, 0, 1, 1},
	};

	assert_int_equal(acpi_hmat_unit(v, 2, HMAT_MEMORY, HMAT_READ_LATENCY), 1);
	v[0].value = 65535; /* means "out of reach" */
	assert_int_equal(acpi_hmat_unit(v, 2, HMAT_MEMORY, HMAT_READ_LATENCY), 0);
	v[1].value = 15;
	assert_int_equal(acpi_hmat_unit(v, 2, HMAT_MEMORY, HMAT_READ_LATENCY), 15);
	assert_int_equal(acpi_hmat_unit(v, 2, HMAT_MEMORY, HMAT_WRITE_LATENCY), 0);
	assert_int_equal(acpi_hmat_unit(v, 2, HMAT_FIRST_LEVEL, HMAT_READ_LATENCY), 0);
	v[0].value = UINT64_MAX - 1;
	v[1].value = UINT64_MAX / 2;
	assert_int_equal(acpi_hmat_unit(v, 2, HMAT_MEMORY, HMAT_READ_LATENCY), UINT64_MAX / 2);
}

/* --- the reference implementation --- */

static void test_reference(void **state)
{
	static const char *const sigs[] = {"SRAT", "SLIT", "HMAT"};
	struct acpi_numa n = numa_of();
	struct acpi_facts f = facts_of(CPUS, &n);
	char dir[] = "/tmp/nemu-numa-XXXXXX", command[512];
	struct acpi_tables t;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(acpi_build(&t, &f, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++) {
		const struct acpi_table_ref *r = acpi_find(&t, sigs[i]);
		char path[64];
		FILE *file;

		snprintf(path, sizeof(path), "%s/%s.dat", dir, sigs[i]);
		file = fopen(path, "we");
		assert_int_equal(fwrite(t.data + r->off, 1, r->len, file), r->len);
		fclose(file);
		/* apart and together again: the same bytes behind the header, and not a word of complaint */
		snprintf(command, sizeof(command),
			 "cd %s && iasl -d %s.dat > log 2>&1 && ! grep -iE "
			 "'error|warning|invalid' log && "
			 "cp %s.dat first && iasl %s.dsl > log 2>&1 && grep -q '0 Errors, 0 "
			 "Warnings' log && "
			 "cmp -i 36 first %s.aml",
			 dir, sigs[i], sigs[i], sigs[i], sigs[i]);
		if (system(command)) {
			fail_msg("%s: iasl complains, see %s", sigs[i], dir);
		}
	}
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
	acpi_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_absent), cmocka_unit_test(test_srat),
		cmocka_unit_test(test_slit),   cmocka_unit_test(test_hmat),
		cmocka_unit_test(test_unit),   cmocka_unit_test(test_reference),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
