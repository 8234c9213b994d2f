/*
 * What the boards of all architectures do the same way: see machine_int.h. Control loop.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arch/cpu.h"
#include "firmware/flash.h"
#include "firmware/fw_cfg.h"
#include "firmware/linux.h"
#include "kvm/kvm.h"
#include "machine/fw_options.h"
#include "machine/machine_int.h"
#include "machine/smbios_opts.h"
#include "spec/fw_cfg.h"

static bool has_firmware(const struct machine *m)
{
	return m->cfg->bios || m->be.flash[0].file;
}

bool board_has_boot_source(const struct machine *m)
{
	return has_firmware(m) || m->cfg->kernel;
}

bool board_boots_directly(const struct machine *m)
{
	return m->cfg->kernel && !has_firmware(m);
}

/* --- parts --- */

static void vcpu_thread_init(void *arg)
{
	struct machine *m = arg;

	if (m->env.thread_init) {
		m->env.thread_init(m->env.arg, MACHINE_THREAD_VCPU);
	}
}

int board_add_kvm(struct machine *m, struct kvm_vm_config *c, struct err *err)
{
	int ret;

	c->loop = m->vm.loop;
	c->mem = m->vm.mem;
	c->bus = m->vm.bus;
	c->power = &m->power;
	c->thread_init = vcpu_thread_init;
	c->thread_arg = m;
	ret = kvm_vm_new(c, &m->kvm, err);
	if (!ret) {
		m->vm.irq = kvm_vm_irqchip(m->kvm);
		m->vm.doorbells = kvm_vm_doorbells(m->kvm);
	}
	return ret;
}

int board_add_firmware(struct machine *m, uint32_t volatile_size, struct err *err)
{
	struct flash_config unit[FLASH_MAX_UNITS] = {
		{"-drive if=pflash,unit=0", m->be.flash[0].file, m->be.flash[0].read_only, 0},
		{"-drive if=pflash,unit=1", m->be.flash[1].file, m->be.flash[1].read_only, 0},
	};

	if (!unit[0].path && unit[1].path) {
		return err_set(err, EINVAL,
			       "-drive if=pflash,unit=1,file=%s: unit 0, the code, is missing",
			       unit[1].path);
	}
	if (m->cfg->bios) {
		unit[0] = (struct flash_config){"-bios", m->cfg->bios, true, 0};
		unit[1].path = NULL;
	}
	if (!unit[0].path) {
		return 0;
	}
	if (!unit[1].path) {
		unit[1].volatile_size = volatile_size;
	}
	return flash_new(&m->vm, unit, unit[1].path || volatile_size ? 2 : 1, err);
}

int board_add_tables(struct machine *m, uint64_t ram_base, acpi_facts_fn *facts,
		     struct err *err)
{
	struct board_parts *p = &m->parts;
	int ret = fw_cfg_set_u16(p->fw, FW_CFG_NB_CPUS, (uint16_t)m->cfg->cpus, err);

	ret = ret ? ret : fw_options_add(m, p->fw, err);
	ret = ret ? ret : smbios_facts_init(&p->smbios, m->cfg, err);
	p->smbios.low_base = ram_base;
	p->smbios.ram_high = ram_base ? 0 : m->memory.high; /* not from 0 on: in one piece */
	p->smbios.ram_low = m->memory.size - p->smbios.ram_high;
	ret = ret ? ret : smbios_fw_cfg_add(p->fw, &p->smbios, err);
	return ret ? ret : acpi_loader_new(p->fw, facts, m, &p->acpi, err);
}

/* --- life --- */

int board_new(struct machine *m, struct err *err)
{
	m->parts.kernel_fd = m->parts.initrd_fd = -1;
	if (mem_new(&m->vm.mem) || bus_new(&m->vm.bus)) {
		return err_set(err, ENOMEM, "machine: out of memory");
	}
	return board_init(m, err);
}

void board_free(struct machine *m)
{
	struct board_parts *p = &m->parts;

	if (!m->vm.mem) {
		return; /* board_new() was not called */
	}
	acpi_loader_free(p->acpi);
	if (m->kvm) {
		kvm_vm_free(m->kvm);
	}
	if (m->vm.bus) {
		bus_free(m->vm.bus);
	}
	mem_free(m->vm.mem);
	if (p->kernel_fd >= 0) {
		close(p->kernel_fd);
	}
	if (p->initrd_fd >= 0) {
		close(p->initrd_fd);
	}
	smbios_facts_fini(&p->smbios);
	free(p->cpus);
	board_fini(m);
}

static int open_kernel(struct machine *m, struct err *err)
{
	struct board_parts *p = &m->parts;
	int ret = 0;

	if (m->cfg->kernel) {
		ret = boot_file_open("-kernel", m->cfg->kernel, &p->kernel_fd, err);
	}
	if (!ret && m->cfg->initrd) {
		ret = boot_file_open("-initrd", m->cfg->initrd, &p->initrd_fd, err);
	}
	if (!ret && m->cfg->kernel && has_firmware(m)) {
		const struct fw_linux_config fl = {
			.kernel_name = m->cfg->kernel,
			.initrd_name = m->cfg->initrd,
			.kernel_fd = p->kernel_fd,
			.initrd_fd = p->initrd_fd,
			.cmdline = m->cfg->append,
		};

		ret = fw_linux_add(p->fw, &fl, err);
	}
	return ret;
}

int board_ready(struct machine *m, struct err *err)
{
	int ret = board_describe(m, err);

	ret = ret ? ret : open_kernel(m, err);
	return ret ? ret : board_reset(m, err);
}

/* --- queries --- */

const char *machine_cpu_model(unsigned i, const char **doc)
{
	return arch_cpu_model(i, doc);
}

const char *machine_cpu_feature(unsigned i)
{
	return arch_cpu_feature(i);
}

/* --- state --- */

int board_save_cpus(struct machine *m, struct state_out *o, struct err *err)
{
	int ret = 0;

	for (unsigned i = 0; !ret && i < m->cfg->cpus; i++) {
		ret = kvm_vcpu_save(kvm_vm_vcpu(m->kvm, i), o, err);
	}
	return ret;
}

int board_load_cpus(struct machine *m, struct state_in *in, struct err *err)
{
	int ret = 0;

	for (unsigned i = 0; !ret && i < m->cfg->cpus; i++) {
		ret = kvm_vcpu_load(kvm_vm_vcpu(m->kvm, i), in, err);
	}
	return ret;
}
