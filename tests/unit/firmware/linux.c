/* -kernel, -initrd and -append for firmware: the items, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fakes/fakes.h"
#include "firmware/linux.h"
#include "spec/fw_cfg.h"

static int file_of(const void *data, size_t len)
{
	int fd = memfd_create("image", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	return fd;
}

static void item(struct fake_vm *fv, uint16_t key, void *buf, size_t len)
{
	fake_pio_write(fv, 0x510, key, 2);
	for (size_t i = 0; i < len; i++) {
		((uint8_t *)buf)[i] = (uint8_t)fake_pio_read(fv, 0x511, 1);
	}
}

static uint32_t item_u32(struct fake_vm *fv, uint16_t key)
{
	uint32_t v;

	item(fv, key, &v, sizeof(v));
	return v;
}

static uint8_t kernel[6000];

static void make_kernel(uint8_t setup_sects)
{
	for (size_t i = 0; i < sizeof(kernel); i++) {
		kernel[i] = (uint8_t)(i * 3);
	}
	kernel[0x1f1] = setup_sects;
	memcpy(kernel + 0x1fe, "\x55\xaa", 2);
	memcpy(kernel + 0x202, "HdrS", 4);
}

static void test_items(void **state)
{
	static const struct {
		uint8_t sects;
		unsigned setup;
	} cases[] = {{0, 2560}, {3, 2048}, {10, 5632}};
	uint8_t got[6000];
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fake_vm *fv = fake_vm_new(NULL);
		struct fw_linux_config cfg = {.kernel_name = "k", .initrd_name = "i"};
		struct fw_cfg *fw;
		unsigned setup = cases[i].setup;

		make_kernel(cases[i].sects);
		assert_int_equal(fw_cfg_new(&fv->vm, 0x510, &fw, &err), 0);
		cfg.kernel_fd = file_of(kernel, sizeof(kernel));
		cfg.initrd_fd = i ? file_of("initrd!", 7) : -1;
		cfg.cmdline = i ? "console=ttyS0" : NULL;
		assert_int_equal(fw_linux_add(fw, &cfg, &err), 0);
		assert_int_equal(item_u32(fv, FW_CFG_SETUP_SIZE), setup);
		item(fv, FW_CFG_SETUP_DATA, got, setup);
		assert_memory_equal(got, kernel, setup);
		assert_int_equal(fake_pio_read(fv, 0x511, 1), 0); /* not the rest of it */
		assert_int_equal(item_u32(fv, FW_CFG_KERNEL_SIZE), sizeof(kernel) - setup);
		item(fv, FW_CFG_KERNEL_DATA, got, sizeof(kernel) - setup);
		assert_memory_equal(got, kernel + setup, sizeof(kernel) - setup);
		assert_int_equal(item_u32(fv, FW_CFG_INITRD_SIZE), i ? 7 : 0);
		item(fv, FW_CFG_INITRD_DATA, got, 8);
		assert_memory_equal(got, i ? "initrd!" : "\0\0\0\0\0\0\0", 8);
		assert_int_equal(item_u32(fv, FW_CFG_CMDLINE_SIZE), i ? 14 : 1);
		item(fv, FW_CFG_CMDLINE_DATA, got, 14);
		assert_string_equal((char *)got, i ? "console=ttyS0" : "");
		close(cfg.kernel_fd);
		if (i) {
			close(cfg.initrd_fd);
		}
		fake_vm_free(fv);
	}
}

static void refused(const void *data, size_t len, int want, const char *word)
{
	struct fake_vm *fv = fake_vm_new(NULL);
	struct fw_linux_config cfg = {.kernel_name = "/boot/k", .initrd_fd = -1};
	struct fw_cfg *fw;
	struct err err;

	assert_int_equal(fw_cfg_new(&fv->vm, 0x510, &fw, &err), 0);
	cfg.kernel_fd = file_of(data, len);
	assert_int_equal(fw_linux_add(fw, &cfg, &err), want);
	assert_non_null(strstr(err.msg, "-kernel /boot/k"));
	assert_non_null(strstr(err.msg, word));
	close(cfg.kernel_fd);
	fake_vm_free(fv);
}

static void test_refused(void **state)
{
	make_kernel(10);
	refused(kernel, 0, -EINVAL, "no bzImage");
	refused(kernel, 0x205, -EINVAL, "no bzImage");
	refused(kernel, 5632, -EINVAL, "no bzImage"); /* nothing behind the setup part */
	kernel[0x202] = 'h';
	refused(kernel, sizeof(kernel), -EINVAL, "no bzImage");
	make_kernel(255);
	refused(kernel, sizeof(kernel), -EINVAL, "no bzImage");
	make_kernel(4);
	kernel[0x1fe] = 0;
	refused(kernel, sizeof(kernel), -EINVAL, "no bzImage");
}

static void test_too_large(void **state)
{
	struct fake_vm *fv = fake_vm_new(NULL);
	struct fw_linux_config cfg = {.kernel_name = "k", .initrd_name = "i", .initrd_fd = -1};
	struct fw_cfg *fw;
	struct err err;

	make_kernel(4);
	assert_int_equal(fw_cfg_new(&fv->vm, 0x510, &fw, &err), 0);
	cfg.kernel_fd = file_of(kernel, sizeof(kernel));
	assert_int_equal(ftruncate(cfg.kernel_fd, GiB + 1), 0);
	assert_int_equal(fw_linux_add(fw, &cfg, &err), -EFBIG);
	assert_int_equal(ftruncate(cfg.kernel_fd, sizeof(kernel)), 0);
	cfg.initrd_fd = file_of("", 0);
	assert_int_equal(ftruncate(cfg.initrd_fd, 4 * GiB), 0);
	assert_int_equal(fw_linux_add(fw, &cfg, &err), -EFBIG);
	assert_non_null(strstr(err.msg, "-initrd i"));
	close(cfg.kernel_fd);
	close(cfg.initrd_fd);
	fake_vm_free(fv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_items),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_too_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
