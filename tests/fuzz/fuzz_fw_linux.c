/*
 * A kernel and an initrd from anybody, for firmware: the input is the file, a tail of it the initrd.
 * What is accepted is found again whole in fw_cfg's items, and they have nothing behind them.
 *
 * #covers: src/firmware/linux.c src/firmware/linux_x86.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "fakes/fakes.h"
#include "firmware/fw_cfg.h"
#include "firmware/linux.h"
#include "spec/fw_cfg.h"

#define PORT 0x510

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int file_of(const uint8_t *data, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	assert(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	return fd;
}

static void select_(struct fake_vm *fv, uint16_t key)
{
	fake_pio_write(fv, PORT, key, 2);
}

static uint32_t item_u32(struct fake_vm *fv, uint16_t key)
{
	uint32_t v = 0;

	select_(fv, key);
	for (unsigned i = 0; i < 4; i++) {
		v |= fake_pio_read(fv, PORT + 1, 1) << 8 * i;
	}
	return v;
}

static void same(struct fake_vm *fv, uint16_t key, const uint8_t *want, size_t len)
{
	select_(fv, key);
	for (size_t i = 0; i < len; i++) {
		assert(fake_pio_read(fv, PORT + 1, 1) == want[i]);
	}
	assert(fake_pio_read(fv, PORT + 1, 1) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t tail = size ? data[size - 1] : 0, initrd_size = MIN(tail, size);
	struct fake_vm *fv = fake_vm_new(&(struct fake_vm_config){.ram_mib = 1});
	struct fw_linux_config cfg = {
		.kernel_name = "kernel",
		.kernel_fd = file_of(data, size),
		.initrd_name = "initrd",
		.initrd_fd = initrd_size ? file_of(data + size - initrd_size, initrd_size) : -1,
		.cmdline = "quiet",
	};
	struct err err = {0};
	struct fw_cfg *fw;
	int ret = fw_cfg_new(&fv->vm, PORT, &fw, &err);

	assert(ret == 0);
	ret = fw_linux_add(fw, &cfg, &err);
	if (ret == 0) {
		uint32_t setup = item_u32(fv, FW_CFG_SETUP_SIZE);
		uint32_t rest = item_u32(fv, FW_CFG_KERNEL_SIZE);

		assert(setup && rest && (size_t)setup + rest == size);
		same(fv, FW_CFG_SETUP_DATA, data, setup);
		same(fv, FW_CFG_KERNEL_DATA, data + setup, rest);
		assert(item_u32(fv, FW_CFG_INITRD_SIZE) == initrd_size);
		same(fv, FW_CFG_INITRD_DATA, data + size - initrd_size, initrd_size);
	} else {
		assert(ret < 0 && err.msg[0]);
	}
	fake_vm_pause(fv);
	fake_vm_free(fv);
	close(cfg.kernel_fd);
	if (initrd_size) {
		close(cfg.initrd_fd);
	}
	return 0;
}
