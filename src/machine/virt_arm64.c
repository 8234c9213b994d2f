/*
 * The AArch64 `virt` machine: a list of "create this, connect it there". Addresses and interrupts
 * are the platform contract (spec/platform_arm64.h, docs/platform.md).
 *
 * Boot: firmware from flash or -bios starts at address 0 and finds the device tree at the start
 * of RAM, everything else through fw_cfg, a -kernel too; -kernel without firmware is entered
 * directly, the device tree its only description. Control loop. What the guest
 * can reach is in the devices, not here.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arch/arm64/cpu_option.h"
#include "arch/arm64/linux_boot.h"
#include "device/platform/ged.h"
#include "device/platform/primecell.h"
#include "firmware/acpi/acpi.h"
#include "firmware/fdt.h"
#include "firmware/flash.h"
#include "firmware/fw_cfg.h"
#include "firmware/linux.h"
#include "firmware/smbios.h"
#include "kvm/arm64.h"
#include "machine/fw_options.h"
#include "machine/machine_int.h"
#include "machine/smbios_opts.h"
#include "pci/host.h"
#include "spec/fw_cfg.h"
#include "spec/platform_arm64.h"

/* The variables of firmware that was given no file for them: as much as it looks at. */
#define VOLATILE_FLASH (UINT32_C(768) << 10)
/* What the device tree may take at the start of RAM; a kernel follows. */
#define FDT_ROOM (2 * MiB)
_Static_assert(FDT_MAX <= FDT_ROOM, "the tree fits");

struct board {
	struct arm64_cpu_option option;
	struct ged *ged;
	struct pl061 *gpio;
	struct pci_host *host;
	struct fw_cfg *fw;
	struct acpi_loader *acpi;
	struct acpi_cpu *cpus;
	struct fdt_cpu *fdt_cpus;
	struct fdt_memory fdt_mem[MEMORY_MAX_PARTS + 1];
	struct machine *m;
	struct smbios_facts smbios;
	unsigned redist_cpus[KVM_GIC_REGIONS];
	uint64_t mem64_end;
	int kernel_fd, initrd_fd;
	struct arm64_linux_entry entry;
};

static bool has_firmware(const struct machine *m)
{
	return m->cfg->bios || m->be.flash[0].file;
}

bool board_has_boot_source(const struct machine *m)
{
	return has_firmware(m) || m->cfg->kernel;
}

/* --- parts --- */

static void vcpu_thread_init(void *arg)
{
	struct machine *m = arg;

	if (m->env.thread_init) {
		m->env.thread_init(m->env.arg, MACHINE_THREAD_VCPU);
	}
}

static int add_kvm(struct machine *m, struct err *err)
{
	struct kvm_vm_config c = {
		.loop = m->vm.loop, .mem = m->vm.mem, .bus = m->vm.bus, .power = &m->power,
		.thread_init = vcpu_thread_init, .thread_arg = m,
	};
	int ret = kvm_vm_new(&c, &m->kvm, err);

	if (ret) {
		return ret;
	}
	m->vm.irq = kvm_vm_irqchip(m->kvm);
	m->vm.doorbells = kvm_vm_doorbells(m->kvm);
	if (UINT64_C(1) << kvm_vm_ipa_bits(m->kvm) < PLAT_MMIO64_BASE) {
		return err_set(err, ENOTSUP,
			       "this host's processor has %u bits of guest addresses, the machine "
			       "needs 39: use another host", kvm_vm_ipa_bits(m->kvm));
	}
	m->board->mem64_end = MIN(PLAT_MMIO64_END, UINT64_C(1) << kvm_vm_ipa_bits(m->kvm));
	return 0;
}

static int add_cpus(struct machine *m, struct err *err)
{
	struct board *b = m->board;
	const struct kvm_arm64_cpu cpu = {b->option.no_pmu, b->option.no_sve, b->option.no_pauth};
	unsigned n = m->cfg->cpus, max = MIN(kvm_vm_max_vcpus(m->kvm), PLAT_GICR_CPUS + PLAT_GICR2_CPUS);
	struct kvm_gic_config gic = {
		.dist = PLAT_GICD_BASE, .its = PLAT_ITS_BASE, .spis = PLAT_SPIS,
		.pmu_ppi = PLAT_PPI_PMU,
	};
	struct kvm_vcpu *v;
	int ret = 0;

	if (m->cfg->max_cpus > n) {
		return err_set(err, EINVAL, "-smp maxcpus=%u: KVM cannot add processors to an Arm machine "
			       "that runs; leave it out or say maxcpus=%u", m->cfg->max_cpus, n);
	}
	if (n > max) {
		return err_set(err, EINVAL, "-smp %u: KVM takes at most %u vCPUs on this host; use fewer",
			       n, max);
	}
	b->cpus = calloc(n, sizeof(*b->cpus));
	b->fdt_cpus = calloc(n, sizeof(*b->fdt_cpus));
	if (!b->cpus || !b->fdt_cpus) {
		return err_set(err, ENOMEM, "-smp: out of memory");
	}
	for (unsigned i = 0; !ret && i < n; i++) {
		ret = kvm_vcpu_new(m->kvm, i, &cpu, &v, err);
		if (!ret) {
			b->cpus[i] = (struct acpi_cpu){
				.mpidr = kvm_vcpu_mpidr(v), .present = true,
				.node = memory_cpu_node(&m->memory, i), .pmu = kvm_vcpu_has_pmu(v),
			};
			b->fdt_cpus[i] = (struct fdt_cpu){b->cpus[i].mpidr, b->cpus[i].node};
		}
	}
	b->redist_cpus[0] = MIN(n, PLAT_GICR_CPUS);
	b->redist_cpus[1] = n - b->redist_cpus[0];
	gic.redist[0].base = PLAT_GICR_BASE;
	gic.redist[0].cpus = b->redist_cpus[0];
	gic.redist[1].base = PLAT_GICR2_BASE;
	gic.redist[1].cpus = b->redist_cpus[1];
	return ret ? ret : kvm_gic_new(m->kvm, &gic, err);
}

static int add_platform(struct machine *m, struct err *err)
{
	struct board *b = m->board;
	struct pl031_config rtc = {
		.base = PLAT_RTC_BASE, .line = kvm_gic_spi(m->kvm, PLAT_SPI_RTC),
		.offset_s = m->cfg->rtc_offset_s,
	};
	int ret;

	ret = pl031_new(&m->vm, &rtc, err);
	ret = ret ? ret : pl061_new(&m->vm, PLAT_GPIO_BASE, kvm_gic_spi(m->kvm, PLAT_SPI_GPIO),
				    &b->gpio, err);
	ret = ret ? ret : ged_new(&m->vm, PLAT_GED_BASE, kvm_gic_spi(m->kvm, PLAT_SPI_GED), &b->ged,
				  err);
	if (!ret && m->be.serial) {
		struct pl011_config uart = {
			.id = "serial0", .base = PLAT_UART_BASE, .chr = m->be.serial,
			.line = kvm_gic_spi(m->kvm, PLAT_SPI_UART),
		};

		ret = pl011_new(&m->vm, &uart, err);
	}
	ret = ret ? ret : pci_host_new(&m->vm, PLAT_ECAM_BASE, false, 0, &b->host, err);
	if (!ret) {
		m->root = pci_host_bus(b->host);
	}
	return ret;
}

static int add_firmware(struct machine *m, struct err *err)
{
	struct flash_config unit[FLASH_MAX_UNITS] = {
		{"-drive if=pflash,unit=0", m->be.flash[0].file, m->be.flash[0].read_only, 0},
		{"-drive if=pflash,unit=1", m->be.flash[1].file, m->be.flash[1].read_only, 0},
	};

	if (m->cfg->bios) {
		unit[0] = (struct flash_config){"-bios", m->cfg->bios, true, 0};
	}
	if (!unit[0].path) {
		return !unit[1].path ? 0 : err_set(err, EINVAL, "-drive if=pflash,unit=1,file=%s: unit "
						   "0, the code, is missing", unit[1].path);
	}
	if (!unit[1].path) { /* firmware does not start without a second bank */
		unit[1].volatile_size = VOLATILE_FLASH;
	}
	return flash_new(&m->vm, unit, FLASH_MAX_UNITS, err);
}

int board_new(struct machine *m, struct err *err)
{
	struct board *b = calloc(1, sizeof(*b));
	int ret;

	if (!b) {
		return err_set(err, ENOMEM, "machine: out of memory");
	}
	m->board = b;
	b->m = m;
	b->kernel_fd = b->initrd_fd = -1;
	if (m->cfg->machine_name && strstr(m->cfg->machine_name, "q35")) {
		return err_set(err, EINVAL, "-machine %s: is a name of the x86-64 machine; say -machine virt",
			       m->cfg->machine_name);
	}
	if (mem_new(&m->vm.mem) || bus_new(&m->vm.bus)) {
		return err_set(err, ENOMEM, "machine: out of memory");
	}
	ret = arm64_cpu_parse(&b->option, m->cfg->cpu ? m->cfg->cpu : "host", err);
	ret = ret ? ret : add_kvm(m, err);
	/* one bank, however much it is */
	ret = ret ? ret : memory_open(&m->memory, m->cfg, m->vm.mem, 0, PLAT_RAM_BASE, err);
	if (!ret && m->memory.size > PLAT_RAM_MAX) {
		ret = err_set(err, EINVAL, "-m: the machine has room for %llu GiB; use less",
			      (unsigned long long)(PLAT_RAM_MAX / GiB));
	}
	ret = ret ? ret : add_cpus(m, err);
	ret = ret ? ret : add_platform(m, err);
	ret = ret ? ret : add_firmware(m, err);
	return ret;
}

void board_free(struct machine *m)
{
	struct board *b = m->board;

	if (!b) {
		return;
	}
	acpi_loader_free(b->acpi);
	if (m->kvm) {
		kvm_vm_free(m->kvm);
	}
	if (m->vm.bus) {
		bus_free(m->vm.bus);
	}
	if (m->vm.mem) {
		mem_free(m->vm.mem);
	}
	if (b->kernel_fd >= 0) {
		close(b->kernel_fd);
	}
	if (b->initrd_fd >= 0) {
		close(b->initrd_fd);
	}
	smbios_facts_fini(&b->smbios);
	free(b->fdt_cpus);
	free(b->cpus);
	free(b);
	m->board = NULL;
}

/* --- boot --- */

static void acpi_facts_now(void *opaque, struct acpi_facts *f)
{
	struct board *b = opaque;

	*f = (struct acpi_facts){
		.cpu = b->cpus, .ncpus = b->m->cfg->cpus, .cores = b->m->cfg->cores * b->m->cfg->dies,
		.threads = b->m->cfg->threads, .mem64_base = PLAT_MMIO64_BASE,
		.mem64_end = b->mem64_end, .uart = b->m->be.serial != NULL,
		.numa = memory_acpi(&b->m->memory), .ecam_base = PLAT_ECAM_BASE,
		.last_bus = pci_last_bus(b->m->root), .redist_cpus = {b->redist_cpus[0], b->redist_cpus[1]},
	};
}

static int fill_fw_cfg(struct machine *m, struct err *err)
{
	struct board *b = m->board;
	int ret;

	ret = fw_cfg_new_mmio(&m->vm, PLAT_FW_CFG_BASE, &b->fw, err);
	ret = ret ? ret : fw_cfg_set_u16(b->fw, FW_CFG_NB_CPUS, (uint16_t)m->cfg->cpus, err);
	ret = ret ? ret : fw_options_add(m, b->fw, err);
	ret = ret ? ret : smbios_facts_init(&b->smbios, m->cfg, err);
	b->smbios.ram_low = m->memory.size;
	b->smbios.low_base = PLAT_RAM_BASE;
	ret = ret ? ret : smbios_fw_cfg_add(b->fw, &b->smbios, err);
	return ret ? ret : acpi_loader_new(b->fw, acpi_facts_now, b, &b->acpi, err);
}

/* At the start of RAM, where firmware looks for it. #syscalls(main): getrandom */
static int place_fdt(struct machine *m, bool direct, struct err *err)
{
	struct board *b = m->board;
	const struct acpi_numa *numa = memory_acpi(&m->memory);
	struct fdt_facts f = {
		.cpu = b->fdt_cpus, .ncpus = m->cfg->cpus, .cores = m->cfg->cores * m->cfg->dies,
		.threads = m->cfg->threads, .mem = b->fdt_mem, .nmem = m->memory.nmap,
		.nodes = numa ? numa->nodes : 0, .distance = numa ? numa->distance : NULL,
		.redist_cpus = {b->redist_cpus[0], b->redist_cpus[1]}, .pmu = b->cpus[0].pmu,
		.uart = m->be.serial != NULL, .mem64_base = PLAT_MMIO64_BASE,
		.mem64_end = b->mem64_end, .direct = direct,
		.cmdline = direct ? m->cfg->append : NULL,
		.initrd_start = b->entry.initrd_start, .initrd_end = b->entry.initrd_end,
	};
	void *fdt;
	size_t len;
	int ret;

	for (unsigned i = 0; i < m->memory.nmap; i++) {
		const struct acpi_numa_mem *p = &m->memory.map[i];

		b->fdt_mem[i] = (struct fdt_memory){p->base, p->size, p->node};
	}
	if (direct && getrandom(&f.seed, sizeof(f.seed), GRND_NONBLOCK) != sizeof(f.seed)) {
		f.seed = 0; /* a kernel takes that for none */
	}
	ret = fdt_build(&f, &fdt, &len, err);
	if (ret) {
		return ret;
	}
	ret = mem_write(m->vm.mem, PLAT_RAM_BASE, fdt, len);
	free(fdt);
	return ret ? err_set(err, -ret, "the device tree does not fit into memory: use a larger -m")
		   : 0;
}

/* As often as the machine is reset. BARs are the kernel's to assign, as the tree does not say
 * otherwise. */
static int direct_boot(struct machine *m, struct err *err)
{
	struct board *b = m->board;
	const struct arm64_linux_config lc = {
		.kernel_name = m->cfg->kernel, .initrd_name = m->cfg->initrd,
		.kernel_fd = b->kernel_fd, .initrd_fd = b->initrd_fd,
		.base = PLAT_RAM_BASE + FDT_ROOM, .end = PLAT_RAM_BASE + m->memory.size,
	};

	return arm64_linux_load(m->vm.mem, &lc, &b->entry, err);
}

int board_reset(struct machine *m, struct err *err)
{
	struct board *b = m->board;
	bool direct = m->cfg->kernel && !has_firmware(m);
	struct kvm_arm64_init init = {.pc = PLAT_FLASH_BASE};
	int ret = direct ? direct_boot(m, err) : 0;

	if (direct && !ret) {
		init = (struct kvm_arm64_init){.pc = b->entry.entry, .x0 = PLAT_RAM_BASE};
	}
	ret = ret ? ret : place_fdt(m, direct, err);
	for (unsigned i = 0; !ret && i < m->cfg->cpus; i++) {
		ret = kvm_vcpu_reset(kvm_vm_vcpu(m->kvm, i), i ? NULL : &init, err);
	}
	return ret ? ret : kvm_gic_reset(m->kvm, err);
}

int board_ready(struct machine *m, struct err *err)
{
	struct board *b = m->board;
	int ret = fill_fw_cfg(m, err);

	if (!ret && m->cfg->kernel) {
		ret = boot_file_open("-kernel", m->cfg->kernel, &b->kernel_fd, err);
	}
	if (!ret && m->cfg->initrd) {
		ret = boot_file_open("-initrd", m->cfg->initrd, &b->initrd_fd, err);
	}
	if (!ret && m->cfg->kernel && has_firmware(m)) {
		const struct fw_linux_config fl = {
			.kernel_name = m->cfg->kernel, .initrd_name = m->cfg->initrd,
			.kernel_fd = b->kernel_fd, .initrd_fd = b->initrd_fd, .cmdline = m->cfg->append,
		};

		ret = fw_linux_add(b->fw, &fl, err);
	}
	return ret ? ret : board_reset(m, err);
}

/* The guest listens to one of them: to the event device with ACPI, to the key without. */
void board_powerdown(struct machine *m)
{
	ged_raise(m->board->ged, PLAT_GED_POWER);
	pl061_press(m->board->gpio, PLAT_GPIO_POWER_KEY);
}

/* --- queries --- */

const char *machine_cpu_model(unsigned i, const char **doc)
{
	return arm64_cpu_model(i, doc);
}

const char *machine_cpu_feature(unsigned i)
{
	return arm64_cpu_feature(i);
}

const char *machine_cpu_missing(const struct machine *m, unsigned i, unsigned j)
{
	return NULL; /* both models are what there is */
}

/* --- state: what is not a device --- */

/* The GIC first: it puts tables into the memory that is saved later. */
int board_save(struct machine *m, struct state_out *o, struct err *err)
{
	int ret = kvm_gic_save(m->kvm, o, err);

	for (unsigned i = 0; !ret && i < m->cfg->cpus; i++) {
		ret = kvm_vcpu_save(kvm_vm_vcpu(m->kvm, i), o, err);
	}
	return ret;
}

int board_load(struct machine *m, struct state_in *in, struct err *err)
{
	int ret = 0;

	for (unsigned i = 0; !ret && i < m->cfg->cpus; i++) {
		ret = kvm_vcpu_load(kvm_vm_vcpu(m->kvm, i), in, err);
	}
	return ret ? ret : kvm_gic_load(m->kvm, in, err);
}
