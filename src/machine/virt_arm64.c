/*
 * The AArch64 `virt` machine: a list of "create this, connect it there". Addresses and interrupts
 * are the platform contract (spec/platform_arm64.h, docs/arm64.md).
 *
 * Boot: firmware from flash or -bios starts at address 0 and finds the device tree at the start
 * of RAM, everything else through fw_cfg, a -kernel too; -kernel without firmware is entered
 * directly, the device tree its only description. Control loop. What the guest
 * can reach is in the devices, not here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "arch/arm64/cpu_option.h"
#include "arch/arm64/linux_boot.h"
#include "device/platform/ged.h"
#include "device/platform/primecell.h"
#include "device/platform/serial.h"
#include "firmware/fdt.h"
#include "firmware/fw_cfg.h"
#include "kvm/arm64.h"
#include "machine/machine_int.h"
#include "pci/host.h"
#include "spec/platform_arm64.h"

/* The variables of firmware that was given no file for them: as much as it looks at. */
#define VOLATILE_FLASH (UINT32_C(768) << 10)
/* What the device tree may take at the start of RAM; a kernel follows. */
#define FDT_ROOM (2 * MiB)
_Static_assert(FDT_MAX <= FDT_ROOM, "the tree fits");

struct board {
	struct arm64_cpu_option option;
	struct pl061 *gpio;
	unsigned redist_cpus[KVM_GIC_REGIONS];
	uint64_t high; /* PLAT_HIGH(), and above it */
	uint64_t mem64_base, mem64_end;
	struct arm64_linux_entry entry;
};

/* --- parts --- */

static int add_kvm(struct machine *m, struct err *err)
{
	struct board *b = m->board;
	struct kvm_vm_config c = {0};
	int ret = board_add_kvm(m, &c, err);
	unsigned bits;

	if (ret) {
		return ret;
	}
	bits = kvm_vm_ipa_bits(m->kvm);
	if (bits < PLAT_IPA_BITS_MIN) {
		return err_set(err, ENOTSUP,
			       "this host's processor has %u bits of guest addresses, the "
			       "machine needs %u: use another host",
			       bits, PLAT_IPA_BITS_MIN);
	}
	b->high = PLAT_HIGH(bits);
	b->mem64_base = bits > PLAT_HIGH_BITS ? PLAT_MMIO64_BASE : b->high + b->high / 2;
	b->mem64_end = MIN(PLAT_MMIO64_END, UINT64_C(1) << bits);
	return 0;
}

/* RAM in one piece, however much it is. */
static int add_memory(struct machine *m, struct err *err)
{
	uint64_t room = m->board->high - PLAT_RAM_BASE;
	int ret = memory_open(&m->memory, m->cfg, m->vm.mem, 0, PLAT_RAM_BASE, err);

	if (!ret && m->memory.size > room) {
		ret = err_set(err, EINVAL,
			      "-m: the machine has room for %llu GiB on this host; use less",
			      (unsigned long long)(room / GiB));
	}
	return ret;
}

static int add_cpus(struct machine *m, struct err *err)
{
	struct board *b = m->board;
	const struct kvm_arm64_cpu cpu = {b->option.no_pmu, b->option.no_sve,
					  b->option.no_pauth};
	unsigned n = m->cfg->cpus;
	unsigned max = MIN(kvm_vm_max_vcpus(m->kvm), PLAT_GICR_CPUS + PLAT_GICR2_CPUS);
	struct kvm_gic_config gic = {
		.dist = PLAT_GICD_BASE,
		.its = PLAT_ITS_BASE,
		.spis = PLAT_SPIS,
		.pmu_ppi = PLAT_PPI_PMU,
	};
	struct kvm_vcpu *v;
	int ret = 0;

	if (m->cfg->max_cpus > n) {
		return err_set(err, EINVAL,
			       "-smp maxcpus=%u: KVM cannot add processors to an Arm machine "
			       "that runs; leave it out or say maxcpus=%u",
			       m->cfg->max_cpus, n);
	}
	if (n > max) {
		return err_set(err, EINVAL,
			       "-smp %u: KVM takes at most %u vCPUs on this host; use fewer", n,
			       max);
	}
	m->parts.cpus = calloc(n, sizeof(*m->parts.cpus));
	if (!m->parts.cpus) {
		return err_set(err, ENOMEM, "-smp: out of memory");
	}
	for (unsigned i = 0; !ret && i < n; i++) {
		ret = kvm_vcpu_new(m->kvm, i, &cpu, &v, err);
		if (!ret) {
			m->parts.cpus[i] = (struct acpi_cpu){
				.mpidr = kvm_vcpu_mpidr(v),
				.present = true,
				.node = memory_cpu_node(&m->memory, i),
				.pmu = kvm_vcpu_has_pmu(v),
			};
		}
	}
	b->redist_cpus[0] = MIN(n, PLAT_GICR_CPUS);
	b->redist_cpus[1] = n - b->redist_cpus[0];
	gic.redist[0].base = PLAT_GICR_BASE;
	gic.redist[0].cpus = b->redist_cpus[0];
	gic.redist[1].base = b->high + PLAT_GICR2_OFF;
	gic.redist[1].cpus = b->redist_cpus[1];
	return ret ? ret : kvm_gic_new(m->kvm, &gic, err);
}

static int add_platform(struct machine *m, struct err *err)
{
	struct board *b = m->board;
	struct pl031_config rtc = {
		.base = PLAT_RTC_BASE,
		.line = kvm_gic_spi(m->kvm, PLAT_SPI_RTC),
		.offset_s = m->cfg->rtc_offset_s,
	};
	int ret;

	ret = pl031_new(&m->vm, &rtc, err);
	ret = ret ? ret
		  : pl061_new(&m->vm, PLAT_GPIO_BASE, kvm_gic_spi(m->kvm, PLAT_SPI_GPIO),
			      &b->gpio, err);
	ret = ret ? ret
		  : ged_new(&m->vm, PLAT_GED_BASE, kvm_gic_spi(m->kvm, PLAT_SPI_GED),
			    &m->parts.ged, err);
	if (!ret && m->be.serial) {
		struct serial_config uart = {
			.id = "serial0",
			.base = PLAT_UART_BASE,
			.chr = m->be.serial,
			.line = kvm_gic_spi(m->kvm, PLAT_SPI_UART),
		};

		ret = pl011_new(&m->vm, &uart, err);
	}
	ret = ret ? ret
		  : pci_host_new(&m->vm, b->high + PLAT_ECAM_OFF, false, 0, &m->parts.host,
				 err);
	if (!ret) {
		m->root = pci_host_bus(m->parts.host);
	}
	return ret;
}

int board_init(struct machine *m, struct err *err)
{
	int ret;

	m->board = calloc(1, sizeof(*m->board));
	if (!m->board) {
		return err_set(err, ENOMEM, "machine: out of memory");
	}
	ret = arm64_cpu_parse(&m->board->option, m->cfg->cpu ? m->cfg->cpu : "host", err);
	ret = ret ? ret : add_kvm(m, err);
	ret = ret ? ret : add_memory(m, err);
	ret = ret ? ret : add_cpus(m, err);
	ret = ret ? ret : add_platform(m, err);
	return ret ? ret : board_add_firmware(m, VOLATILE_FLASH, err);
}

void board_fini(struct machine *m)
{
	free(m->board);
	m->board = NULL;
}

/* --- boot --- */

static void facts_now(void *opaque, struct acpi_facts *f)
{
	struct machine *m = opaque;
	struct board *b = m->board;

	*f = (struct acpi_facts){
		.cpu = m->parts.cpus,
		.ncpus = m->cfg->cpus,
		.cores = m->cfg->cores * m->cfg->dies,
		.threads = m->cfg->threads,
		.mem64_base = b->mem64_base,
		.mem64_end = b->mem64_end,
		.uart = m->be.serial != NULL,
		.numa = memory_acpi(&m->memory),
		.ecam_base = b->high + PLAT_ECAM_OFF,
		.last_bus = pci_last_bus(m->root),
		.redist_base = {PLAT_GICR_BASE, b->high + PLAT_GICR2_OFF},
		.redist_cpus = {b->redist_cpus[0], b->redist_cpus[1]},
	};
}

int board_describe(struct machine *m, struct err *err)
{
	int ret = fw_cfg_new_mmio(&m->vm, PLAT_FW_CFG_BASE, &m->parts.fw, err);

	return ret ? ret : board_add_tables(m, PLAT_RAM_BASE, facts_now, err);
}

/* At the start of RAM, where firmware looks for it. #syscalls(main): getrandom */
static int place_fdt(struct machine *m, struct err *err)
{
	struct board *b = m->board;
	struct acpi_facts facts;
	struct fdt_boot boot = {
		.mem = m->memory.map,
		.nmem = m->memory.nmap,
		.direct = board_boots_directly(m),
		.cmdline = m->cfg->append,
		.initrd_start = b->entry.initrd_start,
		.initrd_end = b->entry.initrd_end,
	};
	void *fdt;
	size_t len;
	int ret;

	if (boot.direct &&
	    getrandom(&boot.seed, sizeof(boot.seed), GRND_NONBLOCK) != sizeof(boot.seed)) {
		boot.seed = 0; /* a kernel takes that for none */
	}
	facts_now(m, &facts);
	ret = fdt_build(&facts, &boot, &fdt, &len, err);
	if (ret) {
		return ret;
	}
	ret = mem_write(m->vm.mem, PLAT_RAM_BASE, fdt, len);
	free(fdt);
	return ret ? err_set(err, -ret,
			     "the device tree does not fit into memory: use a larger -m")
		   : 0;
}

/* As often as the machine is reset. BARs are the kernel's to assign, as the tree does not say
 * otherwise. */
static int direct_boot(struct machine *m, struct err *err)
{
	const struct arm64_linux_config lc = {
		.kernel_name = m->cfg->kernel,
		.initrd_name = m->cfg->initrd,
		.kernel_fd = m->parts.kernel_fd,
		.initrd_fd = m->parts.initrd_fd,
		.base = PLAT_RAM_BASE + FDT_ROOM,
		.end = PLAT_RAM_BASE + m->memory.size,
	};

	return arm64_linux_load(m->vm.mem, &lc, &m->board->entry, err);
}

int board_reset(struct machine *m, struct err *err)
{
	bool direct = board_boots_directly(m);
	struct kvm_arm64_init init = {.pc = PLAT_FLASH_BASE};
	int ret = direct ? direct_boot(m, err) : 0;

	if (direct) {
		init = (struct kvm_arm64_init){.pc = m->board->entry.entry,
					       .x0 = PLAT_RAM_BASE};
	}
	ret = ret ? ret : place_fdt(m, err);
	for (unsigned i = 0; !ret && i < m->cfg->cpus; i++) {
		ret = kvm_vcpu_reset(kvm_vm_vcpu(m->kvm, i), i ? NULL : &init, err);
	}
	return ret ? ret : kvm_gic_reset(m->kvm, err);
}

/* The guest listens to one of them: to the event device with ACPI, to the key without. */
void board_powerdown(struct machine *m)
{
	ged_raise(m->parts.ged, PLAT_GED_POWER);
	pl061_press(m->board->gpio, PLAT_GPIO_POWER_KEY);
}

/* --- queries --- */

const char *machine_cpu_missing(const struct machine *m, unsigned i, unsigned j)
{
	return NULL; /* both models are what there is */
}

/* --- state: what is not a device --- */

/* The GIC first: it puts tables into the memory that is saved later. */
int board_save(struct machine *m, struct state_out *o, struct err *err)
{
	int ret = kvm_gic_save(m->kvm, o, err);

	return ret ? ret : board_save_cpus(m, o, err);
}

int board_load(struct machine *m, struct state_in *in, struct err *err)
{
	int ret = board_load_cpus(m, in, err);

	return ret ? ret : kvm_gic_load(m->kvm, in, err);
}
