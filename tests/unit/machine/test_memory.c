/* machine/memory.h: where parts of RAM stand, which back ends are taken for it, what contradicts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "control/cli.h"
#include "machine/memory.h"

#define LOW  (2 * GiB)
#define HIGH (4 * GiB)

/* --- layout --- */

static void pieces(const struct memory_piece *want, unsigned n, const uint64_t *size,
		   unsigned parts)
{
	struct memory_piece got[MEMORY_MAX_PARTS + 1];

	assert_int_equal(memory_layout(size, parts, LOW, HIGH, got), n);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(got[i].part, want[i].part);
		assert_int_equal(got[i].gpa, want[i].gpa);
		assert_int_equal(got[i].offset, want[i].offset);
		assert_int_equal(got[i].size, want[i].size);
	}
}

static void test_layout(void **state)
{
	static const struct memory_piece small[] = {{0, 0, 0, 16 * MiB}};
	static const struct memory_piece full[] = {{0, 0, 0, LOW}};
	static const struct memory_piece over[] = {{0, 0, 0, LOW}, {0, HIGH, LOW, 4096}};
	static const struct memory_piece three[] = {
		{0, 0, 0, GiB},
		{1, GiB, 0, GiB},
		{1, HIGH, GiB, 2 * GiB},
		{2, HIGH + 2 * GiB, 0, 512 * GiB},
	};
	static const struct memory_piece border[] = {{0, 0, 0, LOW}, {1, HIGH, 0, LOW}};

	pieces(small, 1, (uint64_t[]){16 * MiB}, 1);
	pieces(full, 1, (uint64_t[]){LOW}, 1);
	pieces(over, 2, (uint64_t[]){LOW + 4096}, 1);
	pieces(three, 4, (uint64_t[]){GiB, 3 * GiB, 512 * GiB}, 3);
	pieces(border, 2, (uint64_t[]){LOW, LOW}, 2);
}

/* As many parts as there may be, one of which is cut. */
static void test_layout_full(void **state)
{
	struct memory_piece got[MEMORY_MAX_PARTS + 1];
	uint64_t size[MEMORY_MAX_PARTS], sum = 0;

	for (unsigned i = 0; i < MEMORY_MAX_PARTS; i++) {
		size[i] = 192 * MiB;
	}
	assert_int_equal(memory_layout(size, MEMORY_MAX_PARTS, LOW, HIGH, got),
			 MEMORY_MAX_PARTS + 1);
	for (unsigned i = 0; i <= MEMORY_MAX_PARTS; i++) {
		assert_int_equal(got[i].gpa, sum < LOW ? sum : sum - LOW + HIGH);
		sum += got[i].size;
	}
	assert_int_equal(sum, MEMORY_MAX_PARTS * 192 * MiB);
}

/* --- from a command line to regions --- */

struct rig {
	struct vm_config cfg;
	struct memory memory;
	struct mem *mem;
	struct err err;
	int ret;
};

static struct rig *rig_open(const char *line)
{
	struct rig *r = calloc(1, sizeof(*r));
	char *copy = strdup(line), *argv[32] = {(char *)"nemu"}, *save = NULL;
	enum cli_result what;
	int argc = 1;

	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		assert_true(argc < 32);
		argv[argc++] = w;
	}
	if (cli_parse(argc, argv, &r->cfg, &what, &r->err)) {
		fail_msg("%s: %s", line, r->err.msg);
	}
	assert_int_equal(mem_new(&r->mem), 0);
	for (size_t i = 0; !r->ret && i < r->cfg.objects.count; i++) {
		struct opts *o = &r->cfg.objects.item[i].opts;
		enum mem_backend_kind kind;

		assert_true(mem_backend_kind_of(opts_get(o, "qom-type"), &kind));
		r->ret = memory_object(&r->memory, o, opts_get(o, "id"), kind, &r->err);
	}
	if (!r->ret) {
		r->ret = memory_open(&r->memory, &r->cfg, r->mem, LOW, HIGH, &r->err);
	}
	free(copy);
	return r;
}

static void rig_close(struct rig *r)
{
	mem_free(r->mem);
	memory_close(&r->memory);
	vm_config_fini(&r->cfg);
	free(r);
}

static int add_line(struct mem_region *r, void *arg)
{
	char *text = arg;

	snprintf(text + strlen(text), 512 - strlen(text), "%s@%llx+%llx ", mem_region_name(r),
		 (unsigned long long)mem_region_gpa(r), (unsigned long long)mem_region_size(r));
	/* huge pages fit on both sides */
	assert_int_equal((uintptr_t)mem_region_host(r) % (2 * MiB),
			 mem_region_gpa(r) % (2 * MiB));
	return 0;
}

static void regions(const char *line, const char *want)
{
	struct rig *r = rig_open(line);
	char text[512] = "";
	uint64_t sum = 0;

	if (r->ret) {
		fail_msg("%s: %s", line, r->err.msg);
	}
	mem_for_each(r->mem, add_line, text);
	assert_string_equal(text, want);
	for (unsigned i = 0; i < r->memory.nmap; i++) {
		sum += r->memory.map[i].size;
	}
	assert_int_equal(sum, r->memory.size);
	assert_int_equal(r->memory.low + r->memory.high, sum);
	rig_close(r);
}

static void bad(const char *line, const char *names)
{
	struct rig *r = rig_open(line);

	assert_true(r->ret < 0);
	if (!strstr(r->err.msg, names)) {
		fail_msg("%s: '%s' does not name '%s'", line, r->err.msg, names);
	}
	rig_close(r);
}

#define RAM(id, size) "-object memory-backend-ram,reserve=off,id=" id ",size=" size " "

static void test_regions(void **state)
{
	regions("", "ram-low@0+8000000 ");
	regions("-m 3G", "ram-low@0+80000000 ram-high@100000000+40000000 ");
	regions("-m 512G", "ram-low@0+80000000 ram-high@100000000+7f80000000 ");
	regions(RAM("a", "1T") "-machine memory-backend=a",
		"ram-low@0+80000000 ram-high@100000000+ff80000000 ");
	regions(RAM("a", "64M") "-machine memory-backend=a -m 64M", "ram-low@0+4000000 ");
	/* clang-format off */
	regions(RAM("a", "1536M") RAM("b", "1G")
		"-numa node,memdev=b -numa node,memdev=a -numa node -m 2560M",
		"node0-low@0+40000000 node1-low@40000000+40000000 "
		"node1-high@100000000+20000000 ");
	/* clang-format on */
	/* a first node of a size that leaves the second at an odd place, whose host address follows */
	regions(RAM("a", "17M") RAM("b", "3G") "-numa node,memdev=a -numa node,memdev=b",
		"node0-low@0+1100000 node1-low@1100000+7ef00000 "
		"node1-high@100000000+41100000 ");
}

static void test_unused(void **state)
{
	struct rig *r = rig_open(RAM("a", "16M") RAM("b", "32M") "-machine memory-backend=b");

	assert_int_equal(r->ret, 0);
	assert_non_null(memory_find(&r->memory, "a")->open.host);
	assert_int_equal(r->memory.size, 32 * MiB);
	assert_null(memory_find(&r->memory, "c"));
	assert_null(memory_acpi(&r->memory));
	rig_close(r);
}

static void test_acpi(void **state)
{
	/* clang-format off */
	struct rig *r = rig_open(RAM("a", "16M") RAM("b", "16M")
				 "-machine hmat=on -smp 2 -numa node,memdev=a,cpus=0-1 "
				 "-numa node,memdev=b,initiator=0 -numa dist,src=0,dst=1,val=33");
	/* clang-format on */
	const struct acpi_numa *n = memory_acpi(&r->memory);

	assert_int_equal(r->ret, 0);
	assert_int_equal(n->nodes, 2);
	assert_int_equal(n->nmem, 2);
	assert_int_equal(n->mem[1].base, 16 * MiB);
	assert_int_equal(n->mem[1].node, 1);
	assert_int_equal(n->distance[1], 33);
	assert_true(n->hmat && n->initiator[0] && !n->initiator[1]);
	assert_int_equal(n->nearest[1], 0);
	assert_int_equal(memory_cpu_node(&r->memory, 1), 0);
	rig_close(r);
}

static void test_refused(void **state)
{
	bad("-machine memory-backend=x", "memory-backend=x");
	bad("-numa node,memdev=x", "memdev=x");
	bad(RAM("a", "64M") "-machine memory-backend=a -m 65M", "-m");
	bad(RAM("a", "64M") RAM("b", "64M") "-numa node,memdev=a -numa node,memdev=b -m 64M",
	    "134217728");
	bad(RAM("a", "8M") "-machine memory-backend=a", "16 MiB");
	bad(RAM("a", "128T") "-machine memory-backend=a", "64 TiB");
	bad(RAM("a", "8E") RAM("b", "8E") "-numa node,memdev=a -numa node,memdev=b", "64 TiB");
	bad(RAM("a", "64M") "-machine memory-backend=a -numa node,memdev=a",
	    "memory-backend=a");
	bad(RAM("a", "64M") "-machine memory-backend=a -mem-prealloc", "-mem-prealloc");
	bad(RAM("a", "64M") "-numa node,memdev=a -mem-path /dev/shm", "-mem-path");
	bad(RAM("a", "64M,merge=on"), "merge=on");
	bad("-mem-path /no/such -m 64M", "/no/such");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),	cmocka_unit_test(test_layout_full),
		cmocka_unit_test(test_regions), cmocka_unit_test(test_unused),
		cmocka_unit_test(test_acpi),	cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
