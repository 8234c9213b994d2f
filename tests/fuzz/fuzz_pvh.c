/*
 * An ELF kernel from anybody: the input is the file, its last byte says how much of the tail is
 * the initrd. What is accepted must lie where the guest has RAM above 1 MiB, kernel and initrd
 * apart, and be entered inside of it; nothing may be written elsewhere: low memory outside of
 * what the boot needs for itself, a hole's edge and the region behind are looked at.
 *
 * #covers: src/arch/x86/pvh.c src/arch/x86/boot_load.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/x86/linux_boot.h"
#include "base/util.h"
#include "spec/pvh.h"

#define LOW  (8 * MiB)
#define HOLE (4 * MiB) /* a page that is not RAM for the guest, but memory all the same */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int file_of(const uint8_t *data, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	assert(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	return fd;
}

static bool is_clean(struct mem *m, gpa_t at, size_t len)
{
	static uint8_t got[MiB];

	assert(len <= sizeof(got) && mem_read(m, at, got, len) == 0);
	for (size_t i = 0; i < len; i++) {
		if (got[i]) {
			return false;
		}
	}
	return true;
}

static void check_loaded(struct mem *m, const struct x86_linux_entry *e, uint64_t initrd_size)
{
	struct hvm_modlist_entry module = {0};
	struct hvm_start_info si;

	assert(e->pvh && e->entry >= MiB && e->entry < LOW);
	assert(e->entry < HOLE || e->entry >= HOLE + 4096);
	assert(mem_read(m, e->boot_params, &si, sizeof(si)) == 0);
	assert(le32_get(si.magic) == HVM_START_MAGIC);
	assert(le32_get(si.nr_modules) == (initrd_size != 0));
	if (initrd_size) {
		assert(mem_read(m, le64_get(si.modlist_paddr), &module, sizeof(module)) == 0);
		assert(le64_get(module.size) == initrd_size);
		assert(le64_get(module.paddr) >= MiB);
		assert(range_within(le64_get(module.paddr), initrd_size, LOW));
		assert(e->entry < le64_get(module.paddr) ||
		       e->entry >= le64_get(module.paddr) + initrd_size);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct x86_e820 e820[] = {
		{0, 0xA0000, X86_E820_RAM},
		{MiB, HOLE - MiB, X86_E820_RAM},
		{HOLE + 4096, LOW - HOLE - 4096, X86_E820_RAM},
	};
	size_t tail = size ? data[size - 1] : 0, initrd_size = MIN(tail, size);
	struct x86_linux_entry e;
	struct x86_linux_config cfg = {
		.kernel_name = "kernel",
		.initrd_name = initrd_size ? "initrd" : NULL,
		.cmdline = "quiet",
		.e820 = e820,
		.e820_count = ARRAY_SIZE(e820),
	};
	struct mem_region *r;
	struct err err = {0};
	struct mem *m;
	int ret;

	if (size < 4 || memcmp(data, "\177ELF", 4)) {
		return -1; /* fuzz_linux_boot's */
	}
	cfg.kernel_fd = file_of(data, size);
	cfg.initrd_fd = file_of(data + size - initrd_size, initrd_size);
	assert(mem_new(&m) == 0);
	assert(mem_region_add(m, "low", 0, LOW, MEM_RAM, 0, &r, NULL) == 0);
	assert(mem_region_add(m, "behind", LOW, 4096, MEM_RAM, 0, &r, NULL) == 0);
	ret = x86_linux_load(m, &cfg, &e, &err);
	if (ret == 0) {
		check_loaded(m, &e, initrd_size);
	} else {
		assert(ret < 0 && err.msg[0]);
	}
	assert(is_clean(m, 0, 0x8000) && is_clean(m, 0x9F000, MiB - 0x9F000));
	assert(is_clean(m, HOLE, 4096) && is_clean(m, LOW, 4096));
	mem_free(m);
	close(cfg.kernel_fd);
	close(cfg.initrd_fd);
	return 0;
}
