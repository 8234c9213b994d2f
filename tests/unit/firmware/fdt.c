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

#define MAX_CPUS  200
#define PCI_MEM64 0x03000000

static struct acpi_cpu cpus[MAX_CPUS];
static const struct acpi_numa_mem memory[2] = {{PLAT_RAM_BASE, 512 * MiB, 0},
					       {PLAT_RAM_BASE + 512 * MiB, 1 * GiB, 1}};

/* As the board makes them for guest addresses of so many bits. */
static struct acpi_facts facts(unsigned n, unsigned bits)
{
	uint64_t high = PLAT_HIGH(bits);

	for (unsigned i = 0; i < n; i++) {
		cpus[i] = (struct acpi_cpu){
			.mpidr = (i & 15) | (uint64_t)(i / 16) << 8,
			.node = i & 1,
			.pmu = true,
		};
	}
	return (struct acpi_facts){
		.cpu = cpus,
		.ncpus = n,
		.cores = n,
		.threads = 1,
		.redist_base = {PLAT_GICR_BASE, high + PLAT_GICR2_OFF},
		.redist_cpus = {n > 123 ? 123 : n, n > 123 ? n - 123 : 0},
		.uart = true,
		.ecam_base = high + PLAT_ECAM_OFF,
		.mem64_base = bits > PLAT_HIGH_BITS ? PLAT_MMIO64_BASE : high + high / 2,
		.mem64_end = UINT64_C(1) << bits,
	};
}

static void *build(const struct acpi_facts *f, struct fdt_boot *b)
{
	struct err err;
	size_t len;
	void *fdt;

	b->mem = memory;
	b->nmem = f->numa ? 2 : 1;
	assert_int_equal(fdt_build(f, b, &fdt, &len, &err), 0);
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
	struct acpi_facts f = facts(4, 40);
	struct fdt_boot b = {.cmdline = "of the firmware's kernel: not here"};
	void *fdt = build(&f, &b);

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
	assert_false(there(fdt, "/chosen", "bootargs") || there(fdt, "/chosen", "kaslr-seed"));
	assert_int_equal(cell(fdt, "/pcie@4010000000", "ranges", 14), PCI_MEM64);
	assert_int_equal(cell(fdt, "/pcie@4010000000", "ranges", 17), PLAT_MMIO64_BASE >> 32);
	assert_false(there(fdt, "/memory@40000000", "numa-node-id"));
	free(fdt);
}

static void test_direct(void **state)
{
	struct acpi_facts f = facts(1, 40);
	struct fdt_boot b = {
		.direct = true,
		.seed = 0x1122334455667788,
		.cmdline = "console=ttyAMA0 quiet",
		.initrd_start = 0x48000000,
		.initrd_end = 0x48001234,
	};
	void *fdt;

	f.uart = false;
	cpus[0].pmu = false;
	fdt = build(&f, &b);
	assert_string_equal(fdt_getprop(fdt, fdt_path_offset(fdt, "/chosen"), "bootargs", NULL),
			    b.cmdline);
	assert_int_equal(cell(fdt, "/chosen", "linux,initrd-end", 1), 0x48001234);
	assert_int_equal(cell(fdt, "/chosen", "kaslr-seed", 0), 0x11223344);
	assert_false(there(fdt, "/pmu", NULL) || there(fdt, "/pl011@9000000", NULL) ||
		     there(fdt, "/chosen", "stdout-path"));
	free(fdt);
}

static void test_many_and_nodes(void **state)
{
	static const uint8_t distance[4] = {10, 20, 30, 10};
	static const struct acpi_numa numa = {.nodes = 2, .distance = distance};
	struct acpi_facts f = facts(MAX_CPUS, 40);
	struct fdt_boot b = {0};
	void *fdt;

	f.numa = &numa;
	f.cores = 50;
	f.threads = 2;
	fdt = build(&f, &b);
	assert_int_equal(cell(fdt, "/intc@8000000", "#redistributor-regions", 0), 2);
	assert_int_equal(cell(fdt, "/intc@8000000", "reg", 11), 77 * PLAT_GICR_CPU);
	assert_int_equal(cell(fdt, "/cpus/cpu@c07", "numa-node-id", 0), 1);
	assert_int_equal(cell(fdt, "/memory@60000000", "numa-node-id", 0), 1);
	assert_int_equal(cell(fdt, "/distance-map", "distance-matrix", 8), 30);
	assert_int_equal(cell(fdt, "/cpus/cpu-map/socket1/cluster0/core49/thread1", "cpu", 0),
			 cell(fdt, "/cpus/cpu@c07", "phandle", 0));
	free(fdt);
}

/* Guest addresses of 36 bits: all that is above the RAM fits, and nothing overlaps. */
static void test_narrow(void **state)
{
	struct acpi_facts f = facts(MAX_CPUS, PLAT_IPA_BITS_MIN);
	struct fdt_boot b = {0};
	void *fdt = build(&f, &b);
	uint64_t gicr2 = cell(fdt, "/intc@8000000", "reg", 8) << 32 |
			 cell(fdt, "/intc@8000000", "reg", 9);
	uint64_t base = cell(fdt, "/pcie@810000000", "ranges", 17) << 32 |
			cell(fdt, "/pcie@810000000", "ranges", 18);
	uint64_t size = cell(fdt, "/pcie@810000000", "ranges", 19) << 32 |
			cell(fdt, "/pcie@810000000", "ranges", 20);

	assert_int_equal(gicr2, 32 * GiB);
	assert_true(gicr2 + PLAT_GICR2_CPUS * PLAT_GICR_CPU <= 0x810000000);
	assert_true(0x810000000 + PLAT_ECAM_SIZE <= base);
	assert_int_equal(base, 48 * GiB);
	assert_int_equal(base + size, 64 * GiB);
	/* wider ones: QEMU's places */
	assert_int_equal(PLAT_HIGH(39), 256 * GiB);
	assert_int_equal(PLAT_HIGH(52), 256 * GiB);
	free(fdt);
}

/* dtc has an opinion about everything. */
static void test_dtc(void **state)
{
	char path[64], command[128];
	struct acpi_facts f = facts(3, 40);
	struct fdt_boot b = {.direct = true, .cmdline = "x"};
	void *fdt;
	FILE *file;
	char line[256];

	if (system("command -v dtc > /dev/null")) {
		skip();
	}
	fdt = build(&f, &b);
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
		cmocka_unit_test(test_narrow),
		cmocka_unit_test(test_dtc),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
