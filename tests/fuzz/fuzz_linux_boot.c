/*
 * A kernel and an initrd from anybody: the input is the file, a tail of it the initrd. What is
 * accepted must lie where the guest has RAM, kernel and initrd apart, which the boot_params
 * and the entry say; nothing may be written elsewhere (the region behind is checked).
 *
 * #covers: src/arch/x86/linux_boot.c src/arch/boot_file.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/x86/linux_boot.h"
#include "base/util.h"

#define LOW (8 * MiB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int file_of(const uint8_t *data, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	assert(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	return fd;
}

static uint64_t peek(struct mem *m, gpa_t at, unsigned n)
{
	uint64_t v = 0;

	assert(mem_read(m, at, &v, n) == 0);
	return v;
}

static void check_loaded(struct mem *m, const struct x86_linux_kernel *k,
			 const struct x86_linux_entry *e, uint64_t initrd_size)
{
	uint64_t kernel = e->entry - 0x200;
	uint64_t need = MAX(k->init_size, k->payload_size);
	uint64_t rd = peek(m, e->boot_params + 0x218, 4);
	uint64_t len = peek(m, e->boot_params + 0x21C, 4);

	assert(kernel >= MiB && range_within(kernel, need, LOW));
	assert(len == initrd_size);
	if (len) {
		assert(rd >= MiB && range_within(rd, len, LOW));
		assert(rd + len <= kernel || rd >= kernel + need);
		assert(rd + len - 1 <= k->initrd_addr_max);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct x86_e820 e820[] = {
		{0, 0xA0000, X86_E820_RAM},
		{MiB, LOW - MiB, X86_E820_RAM},
		{0xB0000000, 256 * MiB, X86_E820_RESERVED},
	};
	size_t tail = size ? data[size - 1] : 0, initrd_size = MIN(tail, size);
	struct x86_linux_kernel k;
	struct x86_linux_entry e;
	struct x86_linux_config cfg = {
		.kernel_name = "kernel",
		.kernel_fd = file_of(data, size),
		.initrd_name = initrd_size ? "initrd" : NULL,
		.initrd_fd = file_of(data + size - initrd_size, initrd_size),
		.cmdline = "quiet",
		.e820 = e820,
		.e820_count = ARRAY_SIZE(e820),
	};
	uint8_t behind[4096] = {0}, zero[4096] = {0};
	struct mem_region *r;
	struct err err = {0};
	struct mem *m;
	int ret;

	assert(mem_new(&m) == 0);
	assert(mem_region_add(m, "low", 0, LOW, MEM_RAM, 0, &r, NULL) == 0);
	assert(mem_region_add(m, "behind", LOW, sizeof(behind), MEM_RAM, 0, &r, NULL) == 0);
	ret = x86_linux_load(m, &cfg, &e, &err);
	if (ret == 0) {
		assert(x86_linux_check(data, MIN(size, X86_LINUX_HEADER_SIZE), size, "kernel",
				       &k, NULL) == 0);
		check_loaded(m, &k, &e, initrd_size);
	} else {
		assert(ret < 0 && err.msg[0]);
	}
	assert(mem_read(m, LOW, behind, sizeof(behind)) == 0);
	assert(!memcmp(behind, zero, sizeof(zero)));
	mem_free(m);
	close(cfg.kernel_fd);
	close(cfg.initrd_fd);
	return 0;
}
