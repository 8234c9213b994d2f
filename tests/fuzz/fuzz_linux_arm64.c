/*
 * An Arm kernel and an initrd from anybody, entered directly and for firmware: the input is the
 * file, plain or gzip, a tail of it the initrd. What is accepted must lie in the RAM that is there,
 * kernel and initrd apart, and nothing may be written elsewhere. To get past gzip's checksum an
 * input that begins with 'Z' is packed first.
 *
 * #covers: src/arch/arm64/linux_boot.c src/arch/boot_file.c src/base/gunzip.c
 * #covers: src/firmware/linux.c src/firmware/linux_arm64.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include "arch/arm64/linux_boot.h"
#include "base/util.h"
#include "fakes/fakes.h"
#include "firmware/linux.h"

#define BASE (GiB + 2 * MiB)
#define ROOM (8 * MiB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int file_of(const uint8_t *data, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	assert(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	return fd;
}

static int packed(const uint8_t *data, size_t size)
{
	static uint8_t out[1 << 20];
	z_stream z = {.next_in = (uint8_t *)data,
		      .avail_in = (unsigned)size,
		      .next_out = out,
		      .avail_out = sizeof(out)};

	assert(deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
	assert(deflate(&z, Z_FINISH) == Z_STREAM_END);
	deflateEnd(&z);
	return file_of(out, sizeof(out) - z.avail_out);
}

static void directly(const struct arm64_linux_config *cfg, uint64_t initrd_size)
{
	uint8_t behind[4096] = {0}, zero[4096] = {0};
	struct arm64_linux_entry e;
	struct mem_region *r;
	struct err err = {0};
	struct mem *m;
	int ret;

	assert(mem_new(&m) == 0);
	assert(mem_region_add(m, "ram", BASE, ROOM, MEM_RAM, 0, &r, NULL) == 0);
	assert(mem_region_add(m, "behind", BASE + ROOM, sizeof(behind), MEM_RAM, 0, &r, NULL) ==
	       0);
	ret = arm64_linux_load(m, cfg, &e, &err);
	if (ret == 0) {
		assert(e.entry >= BASE && e.entry - BASE < 2 * MiB);
		assert(e.initrd_end - e.initrd_start == initrd_size);
		assert(!initrd_size ||
		       (e.initrd_start > e.entry && e.initrd_end <= BASE + ROOM));
	} else {
		assert(ret < 0 && err.msg[0]);
	}
	assert(mem_read(m, BASE + ROOM, behind, sizeof(behind)) == 0);
	assert(!memcmp(behind, zero, sizeof(zero)));
	mem_free(m);
}

static void for_firmware(const struct fw_linux_config *cfg)
{
	struct fake_vm *fv = fake_vm_new(&(struct fake_vm_config){.ram_mib = 1});
	struct err err = {0};
	struct fw_cfg *fw;
	int ret = fw_cfg_new_mmio(&fv->vm, 0x09020000, &fw, &err);

	assert(ret == 0);
	ret = fw_linux_add(fw, cfg, &err);
	assert(ret == 0 || (ret < 0 && err.msg[0]));
	fake_vm_pause(fv);
	fake_vm_free(fv);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool pack = size && data[0] == 'Z';
	size_t tail = size ? data[size - 1] : 0, initrd_size = MIN(tail, size);
	int kernel = pack ? packed(data + 1, size - 1) : file_of(data, size);
	int initrd = file_of(data + size - initrd_size, initrd_size);
	const struct arm64_linux_config direct = {
		.kernel_name = "kernel",
		.initrd_name = initrd_size ? "initrd" : NULL,
		.kernel_fd = kernel,
		.initrd_fd = initrd,
		.base = BASE,
		.end = BASE + ROOM,
	};
	const struct fw_linux_config firmware = {
		.kernel_name = "kernel",
		.initrd_name = "initrd",
		.kernel_fd = kernel,
		.initrd_fd = initrd_size ? initrd : -1,
		.cmdline = "quiet",
	};

	directly(&direct, initrd_size);
	for_firmware(&firmware);
	close(kernel);
	close(initrd);
	return 0;
}
