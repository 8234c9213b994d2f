/*
 * The x86-64 `virt` machine: a list of "create this, connect it there". Addresses, ports and
 * interrupts are the platform contract (spec/platform_x86.h, docs/platform.md).
 *
 * Boot: firmware from flash or -bios starts at the reset vector and finds everything through
 * fw_cfg, a -kernel too; -kernel without firmware is entered directly, with BARs assigned and
 * tables placed here. Control loop. What the guest can reach is in the devices, not here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/cpuid.h"
#include "arch/x86/linux_boot.h"
#include "arch/x86/regs.h"
#include "device/platform/ged.h"
#include "device/platform/ioapic.h"
#include "device/platform/pm.h"
#include "device/platform/reset.h"
#include "device/platform/rtc.h"
#include "device/platform/serial.h"
#include "firmware/e820.h"
#include "firmware/fw_cfg.h"
#include "kvm/x86.h"
#include "machine/machine_int.h"
#include "pci/host.h"
#include "spec/platform_x86.h"

/* Room that 64-bit BARs shall have at least when the width of addresses is chosen. */
#define MMIO64_MIN (32 * GiB)
/* OVMF counts on no more than this, whatever the processor says. */
#define OVMF_MAX_PHYS_BITS 47u

struct board {
	struct x86_topology topo;
	struct x86_cpu_model model;
	struct kvm_cpuid2 *supported;
	unsigned phys_bits;
	uint32_t signature;
	struct ioapic *ioapic;
	struct x86_linux_entry entry; /* direct boot */
};

/* --- parts --- */

static void board_eoi(void *opaque, uint8_t vector)
{
	struct machine *m = opaque;

	ioapic_eoi(m->board->ioapic, vector);
}

static int add_kvm(struct machine *m, struct err *err)
{
	struct kvm_vm_config c = {
		.ioapic_eoi = board_eoi,
		.ioapic_opaque = m,
		.msi_ext_dest_id = x86_topology_wide(&m->board->topo),
		.no_pmu = m->board->model.no_pmu,
	};

	return board_add_kvm(m, &c, err);
}

static int add_platform(struct machine *m, struct err *err)
{
	struct board *b = m->board;
	struct rtc_config rtc = {.offset_s = m->cfg->rtc_offset_s};
	int ret;

	ret = ioapic_new(&m->vm, &b->ioapic, err);
	ret = ret ? ret : pm_new(&m->vm, err);
	ret = ret ? ret : reset_new(&m->vm, err);
	ret = ret ? ret : rtc_new(&m->vm, &rtc, err);
	ret = ret ? ret
		  : ged_new(&m->vm, PLAT_GED_BASE, ioapic_line(b->ioapic, PLAT_GSI_GED),
			    &m->parts.ged, err);
	if (!ret && m->be.serial) {
		struct serial_config uart = {
			.id = "serial0",
			.base = PLAT_UART_PORT,
			.chr = m->be.serial,
			.line = ioapic_line(b->ioapic, PLAT_GSI_UART),
		};

		ret = uart_new(&m->vm, &uart, err);
	}
	ret = ret ? ret
		  : pci_host_new(&m->vm, PLAT_ECAM_BASE, true, PLAT_PM_PORT, &m->parts.host,
				 err);
	if (!ret) {
		m->root = pci_host_bus(m->parts.host);
	}
	return ret;
}

static int add_cpus(struct machine *m, struct err *err)
{
	struct board *b = m->board;
	struct x86_phys_need need = {
		.ram_end = PLAT_HIGH_RAM_BASE + m->memory.high,
		.window = MMIO64_MIN,
	};
	struct x86_cpuid_config cc = {.model = &b->model, .topo = b->topo};
	struct kvm_cpuid2 *cpuid = NULL;
	struct acpi_cpu *cpus;
	int ret;

	if (m->cfg->max_cpus > kvm_vm_max_vcpus(m->kvm) ||
	    x86_apic_id_max(&b->topo) >= kvm_vm_max_vcpu_ids(m->kvm)) {
		return err_set(
			err, EINVAL,
			"-smp %u: KVM takes at most %u vCPUs with APIC ids below %u on "
			"this host; use fewer, or cores and threads that are powers of two",
			m->cfg->max_cpus, kvm_vm_max_vcpus(m->kvm),
			kvm_vm_max_vcpu_ids(m->kvm));
	}
	ret = kvm_supported_cpuid(m->kvm, &b->supported, err);
	if (ret) {
		return ret;
	}
	ret = x86_phys_bits_choose(b->supported, &b->model, &need, &b->phys_bits, err);
	cc.supported = b->supported;
	cc.phys_bits = b->phys_bits;
	m->parts.cpus = cpus = calloc(m->cfg->max_cpus, sizeof(*cpus));
	if (!ret && !cpus) {
		ret = err_set(err, ENOMEM, "-smp: out of memory");
	}
	for (unsigned i = 0; !ret && i < m->cfg->max_cpus; i++) {
		bool present = i < m->cfg->cpus;
		struct kvm_vcpu *v;

		cpus[i] = (struct acpi_cpu){x86_apic_id(&b->topo, i), present,
					    memory_cpu_node(&m->memory, i)};
		if (!present) {
			continue;
		}
		ret = x86_cpuid_build(&cc, i, &cpuid, err);
		if (!ret) {
			b->signature = x86_cpuid_signature(cpuid);
			ret = kvm_vcpu_new(m->kvm, i, cpus[i].apic_id, cpuid, &v, err);
			free(cpuid);
		}
	}
	return ret;
}

/* The width of an APIC id, which is all that an interrupt message can name. */
#define MAX_APIC_ID 32767u

static int cpus_wanted(struct machine *m, struct err *err)
{
	struct board *b = m->board;

	b->topo = (struct x86_topology){m->cfg->sockets, m->cfg->dies, m->cfg->cores,
					m->cfg->threads};
	if (x86_apic_id_max(&b->topo) > MAX_APIC_ID) {
		return err_set(err, EINVAL,
			       "-smp %u: its APIC ids go beyond %u; use cores and threads "
			       "that are powers of two",
			       m->cfg->max_cpus, MAX_APIC_ID);
	}
	return x86_cpu_model_parse(&b->model, m->cfg->cpu ? m->cfg->cpu : "host", err);
}

int board_init(struct machine *m, struct err *err)
{
	int ret;

	m->board = calloc(1, sizeof(*m->board));
	if (!m->board) {
		return err_set(err, ENOMEM, "machine: out of memory");
	}
	ret = cpus_wanted(m, err);
	ret = ret ? ret : add_kvm(m, err);
	ret = ret ? ret : memory_open(&m->memory, m->cfg, m->vm.mem, PLAT_LOW_RAM_MAX,
				      PLAT_HIGH_RAM_BASE, err);
	ret = ret ? ret : add_platform(m, err);
	ret = ret ? ret : board_add_firmware(m, 0, err);
	ret = ret ? ret : add_cpus(m, err);
	return ret;
}

void board_fini(struct machine *m)
{
	if (m->board) {
		free(m->board->supported);
		free(m->board);
		m->board = NULL;
	}
}

/* --- boot --- */

/* Where 64-bit BARs go without firmware: the top eighth of the address space, as OVMF does. */
static void mem64_window(const struct board *b, uint64_t *base, uint64_t *end)
{
	*end = UINT64_C(1) << MIN(b->phys_bits, OVMF_MAX_PHYS_BITS);
	*base = *end - *end / 8;
}

static void acpi_facts_now(void *opaque, struct acpi_facts *f)
{
	struct machine *m = opaque;
	uint64_t base, end, lo, hi;

	memset(f, 0, sizeof(*f));
	f->cpu = m->parts.cpus;
	f->ncpus = m->cfg->max_cpus;
	f->uart = m->be.serial != NULL;
	f->numa = memory_acpi(&m->memory);
	f->ecam_base = PLAT_ECAM_BASE;
	f->last_bus = pci_last_bus(m->root);
	mem64_window(m->board, &base, &end);
	if (pci_mem64_extent(m->root, &lo, &hi)) {
		/* What firmware decided, and the rest of its window. */
		f->mem64_base = lo < base ? align_down(lo, GiB) : base;
		f->mem64_end = hi > end ? align_up(hi, GiB) : end;
	} else if (board_boots_directly(m)) {
		f->mem64_base = base;
		f->mem64_end = end;
	}
}

int board_describe(struct machine *m, struct err *err)
{
	struct e820_map map = {0};
	int ret;

	ret = fw_cfg_new(&m->vm, PLAT_FW_CFG_PORT, &m->parts.fw, err);
	if (!ret && e820_init(&map, m->memory.low, m->memory.high)) {
		ret = err_set(err, ENOSPC, "machine: the memory map has too many entries");
	}
	ret = ret ? ret : e820_fw_cfg_add(m->parts.fw, &map, err);
	return ret ? ret : board_add_tables(m, 0, acpi_facts_now, err);
}

/* Puts kernel, tables and BARs in place, as often as the machine is reset. */
static int direct_boot(struct machine *m, struct err *err)
{
	struct board *b = m->board;
	struct x86_linux_config lc = {
		.kernel_name = m->cfg->kernel,
		.initrd_name = m->cfg->initrd,
		.kernel_fd = m->parts.kernel_fd,
		.initrd_fd = m->parts.initrd_fd,
		.cmdline = m->cfg->append,
	};
	struct x86_e820 e820[X86_MAX_E820];
	struct e820_map map = {0};
	struct acpi_facts facts;
	struct acpi_placed acpi;
	uint64_t base, end;
	int ret;

	mem64_window(b, &base, &end);
	ret = pci_assign(m->root, PLAT_MMIO32_BASE, PLAT_MMIO32_END, base, end, err);
	if (ret) {
		return ret;
	}
	acpi_facts_now(m, &facts);
	ret = acpi_place(m->vm.mem, m->memory.low, &facts, &acpi, err);
	ret = ret ? ret : smbios_place(m->vm.mem, &m->parts.smbios, err);
	if (ret) {
		return ret;
	}
	if (e820_init_direct(&map, m->memory.low, m->memory.high, acpi.base, acpi.size) ||
	    map.count > X86_MAX_E820) {
		return err_set(err, ENOSPC, "machine: the memory map has too many entries");
	}
	for (unsigned i = 0; i < map.count; i++) {
		e820[i] = (struct x86_e820){
			.addr = le64_get(map.entry[i].base), .size = le64_get(map.entry[i].size),
			.type = le32_get(map.entry[i].type) == E820_RAM ? X86_E820_RAM
									: X86_E820_RESERVED,
		};
	}
	lc.e820 = e820;
	lc.e820_count = map.count;
	lc.rsdp = acpi.rsdp;
	return x86_linux_load(m->vm.mem, &lc, &b->entry, err);
}

int board_reset(struct machine *m, struct err *err)
{
	struct board *b = m->board;
	bool direct = board_boots_directly(m);
	int ret = direct ? direct_boot(m, err) : 0;

	for (unsigned i = 0; !ret && i < m->cfg->cpus; i++) {
		struct kvm_x86_init init = {
			.runnable = i == 0, .mtrr_def_type = direct ? X86_BOOT_MTRR : 0,
		};

		memset(&init.regs, 0, sizeof(init.regs));
		x86_regs_reset(&init.regs, &init.sregs, i == 0, b->signature);
		if (direct && i == 0 && b->entry.pvh) {
			x86_regs_pvh(&init.regs, &init.sregs, (uint32_t)b->entry.entry,
				     (uint32_t)b->entry.boot_params);
		} else if (direct && i == 0) {
			x86_regs_long_mode(&init.regs, &init.sregs, b->entry.tables, b->entry.entry,
					   b->entry.boot_params);
		}
		ret = kvm_vcpu_reset(kvm_vm_vcpu(m->kvm, i), &init, err);
	}
	return ret;
}

void board_powerdown(struct machine *m)
{
	ged_raise(m->parts.ged, PLAT_GED_POWER);
}

/* --- queries --- */

const char *machine_cpu_missing(const struct machine *m, unsigned i, unsigned j)
{
	return m->board && m->board->supported
		       ? x86_cpu_model_missing(m->board->supported, i, j)
		       : NULL;
}

/* --- state: what is not a device --- */

int board_save(struct machine *m, struct state_out *o, struct err *err)
{
	int ret = board_save_cpus(m, o, err);

	return ret ? ret : kvm_clock_save(m->kvm, o, err);
}

/* The clock first: a vCPU's armed deadline counts from it. */
int board_load(struct machine *m, struct state_in *in, struct err *err)
{
	int ret = kvm_clock_load(m->kvm, in, err);

	return ret ? ret : board_load_cpus(m, in, err);
}
