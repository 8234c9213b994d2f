/*
 * Builds the device tree with libfdt's sequential writer: see fdt.h. Node names and properties are
 * those of QEMU's `virt`, by which firmware finds its way. Nothing here is the guest's.
 *
 * Errors of single calls are collected in tree.error; the first one counts.
 */
#include "firmware/fdt.h"

#include <errno.h>
#include <inttypes.h>
#include <libfdt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "base/wire.h"
#include "spec/fw_cfg.h"
#include "spec/platform_arm64.h"
#include "spec/primecell.h"

enum {
	PHANDLE_GIC = 1,
	PHANDLE_ITS,
	PHANDLE_CLOCK,
	PHANDLE_GPIO,
	PHANDLE_CPU /* and following */
};
enum { SPI, PPI };			  /* first cell of an interrupt */
enum { EDGE_RISING = 1, LEVEL_HIGH = 4 }; /* third cell */

/* PCI: first cell of an address */
#define PCI_IO	  0x01000000u
#define PCI_MEM32 0x02000000u
#define PCI_MEM64 0x03000000u
#define PCI_PREFETCHABLE                                                                       \
	0x40000000u /* Linux wants it of what is above 4 GiB, firmware ignores what has it */

struct tree {
	void *fdt;
	int error;
};

static void keep(struct tree *t, int r)
{
	t->error = t->error ? t->error : r;
}

static void begin(struct tree *t, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void begin(struct tree *t, const char *format, ...)
{
	char name[64];
	va_list ap;

	va_start(ap, format);
	vsnprintf(name, sizeof(name), format, ap);
	va_end(ap);
	keep(t, fdt_begin_node(t->fdt, name));
}

static void end(struct tree *t)
{
	keep(t, fdt_end_node(t->fdt));
}

static void text(struct tree *t, const char *name, const char *value)
{
	keep(t, fdt_property_string(t->fdt, name, value));
}

/* Strings one after the other, each with its NUL. */
#define texts(t, name, value) keep(t, fdt_property((t)->fdt, name, value, sizeof(value)))

static void flag(struct tree *t, const char *name)
{
	keep(t, fdt_property(t->fdt, name, NULL, 0));
}

static void cells(struct tree *t, const char *name, const uint32_t *v, size_t n)
{
	be32 wire[32];

	for (size_t i = 0; i < n && i < ARRAY_SIZE(wire); i++) {
		wire[i] = be32_of(v[i]);
	}
	keep(t, fdt_property(t->fdt, name, wire, (int)(n * sizeof(wire[0]))));
}
#define CELLS(t, name, ...)                                                                    \
	cells(t, name, (const uint32_t[]){__VA_ARGS__},                                        \
	      sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))
#define HI_LO(v) (uint32_t)((uint64_t)(v) >> 32), (uint32_t)(v)

static void interrupt(struct tree *t, uint32_t kind, uint32_t n, uint32_t trigger)
{
	CELLS(t, "interrupts", kind, n, trigger);
}

/* --- what every machine has --- */

static void chosen(struct tree *t, const struct acpi_facts *f, const struct fdt_boot *b)
{
	char path[32];

	begin(t, "chosen");
	if (f->uart) {
		snprintf(path, sizeof(path), "/pl011@%" PRIx64, PLAT_UART_BASE);
		text(t, "stdout-path", path);
	}
	if (b->direct) {
		if (b->cmdline) {
			text(t, "bootargs", b->cmdline);
		}
		if (b->initrd_end > b->initrd_start) {
			CELLS(t, "linux,initrd-start", HI_LO(b->initrd_start));
			CELLS(t, "linux,initrd-end", HI_LO(b->initrd_end));
		}
		CELLS(t, "kaslr-seed", HI_LO(b->seed));
	}
	end(t);
}

static void node_id(struct tree *t, const struct acpi_facts *f, uint32_t node)
{
	if (f->numa) {
		CELLS(t, "numa-node-id", node);
	}
}

static void memory(struct tree *t, const struct acpi_facts *f, const struct fdt_boot *b)
{
	for (unsigned i = 0; i < b->nmem; i++) {
		begin(t, "memory@%" PRIx64, b->mem[i].base);
		text(t, "device_type", "memory");
		CELLS(t, "reg", HI_LO(b->mem[i].base), HI_LO(b->mem[i].size));
		node_id(t, f, b->mem[i].node);
		end(t);
	}
}

static void distances(struct tree *t, const struct acpi_numa *numa)
{
	be32 m[3 * ACPI_MAX_NODES * ACPI_MAX_NODES];
	unsigned n = numa->nodes;

	begin(t, "distance-map");
	text(t, "compatible", "numa-distance-map-v1");
	for (unsigned i = 0; i < n * n; i++) {
		m[3 * i] = be32_of(i / n);
		m[3 * i + 1] = be32_of(i % n);
		m[3 * i + 2] = be32_of(numa->distance[i]);
	}
	keep(t, fdt_property(t->fdt, "distance-matrix", m, (int)(3 * n * n * sizeof(m[0]))));
	end(t);
}

static void cpu_map(struct tree *t, const struct acpi_facts *f)
{
	unsigned per_socket = f->cores * f->threads;

	begin(t, "cpu-map");
	for (unsigned i = 0; i < f->ncpus; i++) {
		bool first_of_core = i % f->threads == 0, threads = f->threads > 1;

		if (i % per_socket == 0) {
			begin(t, "socket%u", i / per_socket);
			begin(t, "cluster0");
		}
		if (first_of_core) {
			begin(t, "core%u", i % per_socket / f->threads);
		}
		if (threads) {
			begin(t, "thread%u", i % f->threads);
		}
		CELLS(t, "cpu", PHANDLE_CPU + i);
		if (threads) {
			end(t);
		}
		if ((i + 1) % f->threads == 0) {
			end(t);
		}
		if ((i + 1) % per_socket == 0) {
			end(t);
			end(t);
		}
	}
	end(t);
}

static void cpus(struct tree *t, const struct acpi_facts *f)
{
	begin(t, "cpus");
	CELLS(t, "#address-cells", 1);
	CELLS(t, "#size-cells", 0);
	cpu_map(t, f);
	for (unsigned i = 0; i < f->ncpus; i++) {
		begin(t, "cpu@%" PRIx64, f->cpu[i].mpidr);
		text(t, "device_type", "cpu");
		text(t, "compatible", "arm,armv8");
		CELLS(t, "reg", (uint32_t)f->cpu[i].mpidr);
		text(t, "enable-method", "psci");
		node_id(t, f, f->cpu[i].node);
		CELLS(t, "phandle", PHANDLE_CPU + i);
		end(t);
	}
	end(t);
}

static void processor_parts(struct tree *t, const struct acpi_facts *f)
{
	begin(t, "psci");
	texts(t, "compatible", "arm,psci-1.0\0arm,psci-0.2\0arm,psci");
	text(t, "method", "hvc");
	end(t);

	begin(t, "timer");
	text(t, "compatible", "arm,armv8-timer");
	flag(t, "always-on");
	CELLS(t, "interrupts", PPI, PLAT_PPI_S_TIMER - 16, LEVEL_HIGH, PPI, PLAT_PPI_TIMER - 16,
	      LEVEL_HIGH, PPI, PLAT_PPI_VTIMER - 16, LEVEL_HIGH, PPI, PLAT_PPI_EL2_TIMER - 16,
	      LEVEL_HIGH);
	end(t);

	if (f->cpu[0].pmu) {
		begin(t, "pmu");
		text(t, "compatible", "arm,armv8-pmuv3");
		interrupt(t, PPI, PLAT_PPI_PMU - 16, LEVEL_HIGH);
		end(t);
	}
}

static void gic(struct tree *t, const struct acpi_facts *f)
{
	uint64_t size = f->redist_cpus[0] * PLAT_GICR_CPU,
		 size2 = f->redist_cpus[1] * PLAT_GICR_CPU;

	begin(t, "intc@%" PRIx64, PLAT_GICD_BASE);
	text(t, "compatible", "arm,gic-v3");
	CELLS(t, "#interrupt-cells", 3);
	flag(t, "interrupt-controller");
	CELLS(t, "#address-cells", 2);
	CELLS(t, "#size-cells", 2);
	flag(t, "ranges");
	CELLS(t, "#redistributor-regions", size2 ? 2 : 1);
	/* of the second region nothing, where there is none */
	cells(t, "reg",
	      (const uint32_t[]){HI_LO(PLAT_GICD_BASE), HI_LO(PLAT_GICD_SIZE),
				 HI_LO(f->redist_base[0]), HI_LO(size),
				 HI_LO(f->redist_base[1]), HI_LO(size2)},
	      size2 ? 12 : 8);
	CELLS(t, "phandle", PHANDLE_GIC);
	begin(t, "msi-controller@%" PRIx64, PLAT_ITS_BASE);
	text(t, "compatible", "arm,gic-v3-its");
	flag(t, "msi-controller");
	CELLS(t, "#msi-cells", 1);
	CELLS(t, "reg", HI_LO(PLAT_ITS_BASE), HI_LO(PLAT_ITS_SIZE));
	CELLS(t, "phandle", PHANDLE_ITS);
	end(t);
	end(t);
}

/* --- devices --- */

/* With its id in the tree a kernel need not read it, a byte at a time. */
static void primecell(struct tree *t, uint32_t id, bool uart)
{
	CELLS(t, "arm,primecell-periphid", id);
	if (uart) {
		CELLS(t, "clocks", PHANDLE_CLOCK, PHANDLE_CLOCK);
		texts(t, "clock-names", "uartclk\0apb_pclk");
	} else {
		CELLS(t, "clocks", PHANDLE_CLOCK);
		text(t, "clock-names", "apb_pclk");
	}
}

static void primecells(struct tree *t, const struct acpi_facts *f)
{
	begin(t, "apb-pclk");
	text(t, "compatible", "fixed-clock");
	CELLS(t, "#clock-cells", 0);
	CELLS(t, "clock-frequency", PLAT_UART_CLOCK_HZ);
	text(t, "clock-output-names", "clk24mhz");
	CELLS(t, "phandle", PHANDLE_CLOCK);
	end(t);

	if (f->uart) {
		begin(t, "pl011@%" PRIx64, PLAT_UART_BASE);
		texts(t, "compatible", "arm,pl011\0arm,primecell");
		CELLS(t, "reg", HI_LO(PLAT_UART_BASE), HI_LO(PLAT_DEVICE_SIZE));
		interrupt(t, SPI, PLAT_SPI_UART, LEVEL_HIGH);
		primecell(t, PL011_PERIPH_ID, true);
		end(t);
	}

	begin(t, "pl031@%" PRIx64, PLAT_RTC_BASE);
	texts(t, "compatible", "arm,pl031\0arm,primecell");
	CELLS(t, "reg", HI_LO(PLAT_RTC_BASE), HI_LO(PLAT_DEVICE_SIZE));
	interrupt(t, SPI, PLAT_SPI_RTC, LEVEL_HIGH);
	primecell(t, PL031_PERIPH_ID, false);
	end(t);

	begin(t, "pl061@%" PRIx64, PLAT_GPIO_BASE);
	texts(t, "compatible", "arm,pl061\0arm,primecell");
	CELLS(t, "reg", HI_LO(PLAT_GPIO_BASE), HI_LO(PLAT_DEVICE_SIZE));
	interrupt(t, SPI, PLAT_SPI_GPIO, LEVEL_HIGH);
	primecell(t, PL061_PERIPH_ID, false);
	flag(t, "gpio-controller");
	CELLS(t, "#gpio-cells", 2);
	CELLS(t, "phandle", PHANDLE_GPIO);
	end(t);

	begin(t, "gpio-keys");
	text(t, "compatible", "gpio-keys");
	begin(t, "poweroff");
	text(t, "label", "Power button");
	CELLS(t, "linux,code", PLAT_KEY_POWER);
	CELLS(t, "gpios", PHANDLE_GPIO, PLAT_GPIO_POWER_KEY, 0);
	end(t);
	end(t);
}

static void firmware(struct tree *t)
{
	begin(t, "flash@%" PRIx64, PLAT_FLASH_BASE);
	text(t, "compatible", "cfi-flash");
	CELLS(t, "reg", HI_LO(PLAT_FLASH_BASE), HI_LO(PLAT_FLASH_BANK),
	      HI_LO(PLAT_FLASH_BASE + PLAT_FLASH_BANK), HI_LO(PLAT_FLASH_BANK));
	CELLS(t, "bank-width", 4);
	end(t);

	begin(t, "fw-cfg@%" PRIx64, PLAT_FW_CFG_BASE);
	text(t, "compatible", "qemu,fw-cfg-mmio");
	CELLS(t, "reg", HI_LO(PLAT_FW_CFG_BASE), HI_LO(FW_CFG_MMIO_SIZE));
	flag(t, "dma-coherent");
	end(t);
}

static void pcie(struct tree *t, const struct acpi_facts *f, const struct fdt_boot *b)
{
	uint64_t mem32 = PLAT_MMIO32_END - PLAT_MMIO32_BASE;

	begin(t, "pcie@%" PRIx64, f->ecam_base);
	text(t, "compatible", "pci-host-ecam-generic");
	text(t, "device_type", "pci");
	CELLS(t, "#address-cells", 3);
	CELLS(t, "#size-cells", 2);
	CELLS(t, "linux,pci-domain", 0);
	CELLS(t, "bus-range", 0, 255);
	flag(t, "dma-coherent");
	CELLS(t, "reg", HI_LO(f->ecam_base), HI_LO(PLAT_ECAM_SIZE));
	CELLS(t, "ranges", PCI_IO, HI_LO(0), HI_LO(PLAT_PCI_IO_BASE), HI_LO(PLAT_PCI_IO_SIZE),
	      PCI_MEM32, HI_LO(PLAT_MMIO32_BASE), HI_LO(PLAT_MMIO32_BASE), HI_LO(mem32),
	      PCI_MEM64 | (b->direct ? PCI_PREFETCHABLE : 0), HI_LO(f->mem64_base),
	      HI_LO(f->mem64_base), HI_LO(f->mem64_end - f->mem64_base));
	CELLS(t, "msi-map", 0, PHANDLE_ITS, 0, 0x10000);
	end(t);
}

int fdt_build(const struct acpi_facts *f, const struct fdt_boot *boot, void **out, size_t *len,
	      struct err *err)
{
	void *buf = malloc(FDT_MAX);
	struct tree t = {.fdt = buf};

	if (!buf) {
		return err_set(err, ENOMEM, "no memory for the device tree");
	}
	keep(&t, fdt_create(buf, FDT_MAX));
	keep(&t, fdt_finish_reservemap(buf));
	begin(&t, "%s", "");
	text(&t, "compatible", "linux,dummy-virt");
	text(&t, "model", "linux,dummy-virt");
	CELLS(&t, "#address-cells", 2);
	CELLS(&t, "#size-cells", 2);
	CELLS(&t, "interrupt-parent", PHANDLE_GIC);
	chosen(&t, f, boot);
	memory(&t, f, boot);
	if (f->numa && f->numa->distance) {
		distances(&t, f->numa);
	}
	cpus(&t, f);
	processor_parts(&t, f);
	gic(&t, f);
	primecells(&t, f);
	firmware(&t);
	pcie(&t, f, boot);
	end(&t);
	keep(&t, fdt_finish(buf));
	if (t.error) {
		free(buf);
		return err_set(err, t.error == -FDT_ERR_NOSPACE ? ENOSPC : EINVAL,
			       "the device tree cannot be made: %s", fdt_strerror(t.error));
	}
	*len = fdt_totalsize(buf);
	*out = realloc(buf, *len);
	*out = *out ? *out : buf;
	return 0;
}
