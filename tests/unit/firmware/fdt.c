/*
 * The device tree: structure and values by libfdt's reader, and by dtc without a warning.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "firmware/fdt.h"
#include "spec/platform_arm64.h"
#include "spec/primecell.h"

#define MAX_CPUS 200

static struct fdt_cpu cpus[MAX_CPUS];
static const struct fdt_memory memory[2] = {{PLAT_RAM_BASE, 512 * MiB, 0},
					    {PLAT_RAM_BASE + 512 * MiB, 1 * GiB, 1}};

static struct fdt_facts facts(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		cpus[i] = (struct fdt_cpu){(i & 15) | (uint64_t)(i / 16) << 8, i & 1};
	}
	return (struct fdt_facts){
		.cpu = cpus, .ncpus = n, .cores = n, .threads = 1, .mem = memory, .nmem = 1,
		.redist_cpus = {n > 123 ? 123 : n, n > 123 ? n - 123 : 0}, .pmu = true, .uart = true,
		.mem64_base = PLAT_MMIO64_BASE, .mem64_end = PLAT_MMIO64_END,
	};
}

static void *build(const struct fdt_facts *f)
{
	struct err err;
	size_t len;
	void *fdt;

	assert_int_equal(fdt_build(f, &fdt, &len, &err), 0);
	assert_int_equal(fdt_check_full(fdt, len), 0);
	return fdt;
}

static uint64_t cell(const void *fdt, const char *path, const char *name, int i)
{
	int node = fdt_path_offset(fdt, path), len;
	const fdt32_t *p;

	assert_true(node >= 0);
	p = fdt_getprop(fdt, node, name, &len);
	assert_non_null(p);
	assert_true(len >= (i + 1) * 4);
	return fdt32_to_cpu(p[i]);
}

static bool there(const void *fdt, const char *path, const char *name)
{
	int node = fdt_path_offset(fdt, path);

	return node >= 0 && (!name || fdt_getprop(fdt, node, name, NULL));
}

static void test_values(void **state)
{
	struct fdt_facts f = facts(4);
	void *fdt = build(&f);

	assert_int_equal(cell(fdt, "/memory@40000000", "reg", 1), PLAT_RAM_BASE);
	assert_int_equal(cell(fdt, "/memory@40000000", "reg", 3), 512 * MiB);
	assert_int_equal(cell(fdt, "/cpus/cpu@3", "reg", 0), 3);
	assert_int_equal(cell(fdt, "/pl011@9000000", "interrupts", 1), PLAT_SPI_UART);
	assert_int_equal(cell(fdt, "/intc@8000000", "reg", 7), 4 * PLAT_GICR_CPU);
	assert_int_equal(cell(fdt, "/pcie@4010000000", "msi-map", 1),
			 cell(fdt, "/intc@8000000/msi-controller@8080000", "phandle", 0));
	assert_int_equal(cell(fdt, "/timer", "interrupts", 7), PLAT_PPI_VTIMER - 16);
	assert_int_equal(cell(fdt, "/pl011@9000000", "arm,primecell-periphid", 0),
			 PL011_PERIPH_ID);
	assert_int_equal(cell(fdt, "/pl031@9010000", "arm,primecell-periphid", 0),
			 PL031_PERIPH_ID);
	assert_int_equal(cell(fdt, "/pl061@9030000", "arm,primecell-periphid", 0),
			 PL061_PERIPH_ID);
	assert_int_equal(cell(fdt, "/gpio-keys/poweroff", "linux,code", 0), PLAT_KEY_POWER);
	assert_true(there(fdt, "/pmu", NULL));
	assert_false(there(fdt, "/chosen", "bootargs"));
	assert_false(there(fdt, "/memory@40000000", "numa-node-id"));
	free(fdt);
}

static void test_direct(void **state)
{
	struct fdt_facts f = facts(1);
	void *fdt;

	f.direct = true;
	f.seed = 0x1122334455667788;
	f.cmdline = "console=ttyAMA0 quiet";
	f.initrd_start = 0x48000000;
	f.initrd_end = 0x48001234;
	f.uart = false;
	f.pmu = false;
	fdt = build(&f);
	assert_string_equal(fdt_getprop(fdt, fdt_path_offset(fdt, "/chosen"), "bootargs", NULL), f.cmdline);
	assert_int_equal(cell(fdt, "/chosen", "linux,initrd-end", 1), 0x48001234);
	assert_int_equal(cell(fdt, "/chosen", "kaslr-seed", 0), 0x11223344);
	assert_false(there(fdt, "/pmu", NULL) || there(fdt, "/pl011@9000000", NULL) ||
		     there(fdt, "/chosen", "stdout-path"));
	free(fdt);
}

static void test_many_and_nodes(void **state)
{
	static const uint8_t distance[4] = {10, 20, 30, 10};
	struct fdt_facts f = facts(MAX_CPUS);
	void *fdt;

	f.nmem = 2;
	f.nodes = 2;
	f.distance = distance;
	f.cores = 50;
	f.threads = 2;
	fdt = build(&f);
	assert_int_equal(cell(fdt, "/intc@8000000", "#redistributor-regions", 0), 2);
	assert_int_equal(cell(fdt, "/intc@8000000", "reg", 11), 77 * PLAT_GICR_CPU);
	assert_int_equal(cell(fdt, "/cpus/cpu@c07", "numa-node-id", 0), 1);
	assert_int_equal(cell(fdt, "/memory@60000000", "numa-node-id", 0), 1);
	assert_int_equal(cell(fdt, "/distance-map", "distance-matrix", 8), 30);
	assert_int_equal(cell(fdt, "/cpus/cpu-map/socket1/cluster0/core49/thread1", "cpu", 0),
			 cell(fdt, "/cpus/cpu@c07", "phandle", 0));
	free(fdt);
}

/* dtc has an opinion about everything. */
static void test_dtc(void **state)
{
	char path[64], command[128];
	struct fdt_facts f = facts(3);
	void *fdt;
	FILE *file;
	char line[256];

	if (system("command -v dtc > /dev/null")) {
		skip();
	}
	f.direct = true;
	f.cmdline = "x";
	fdt = build(&f);
	snprintf(path, sizeof(path), "/tmp/nemu-fdt-%d", (int)getpid());
	file = fopen(path, "w");
	assert_int_equal(fwrite(fdt, fdt_totalsize(fdt), 1, file), 1);
	fclose(file);
	snprintf(command, sizeof(command), "dtc -I dtb -O dts -o /dev/null %s 2>&1", path);
	file = popen(command, "r");
	if (fgets(line, sizeof(line), file)) {
		fail_msg("dtc: %s", line);
	}
	assert_int_equal(pclose(file), 0);
	unlink(path);
	free(fdt);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_direct),
		cmocka_unit_test(test_many_and_nodes),
		cmocka_unit_test(test_dtc),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
