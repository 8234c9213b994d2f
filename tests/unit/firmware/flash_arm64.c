/*
 * The flash of the Arm machine as AAVMF drives it: status, buffered programming, erase, lock,
 * identification, malformed sequences, the file that follows, a bank without a file, state.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fakes/fakes.h"
#include "firmware/flash.h"
#include "spec/cfi_flash.h"
#include "spec/platform_arm64.h"

#define VARS  (3 * 256 * KiB)
#define BANK1 (PLAT_FLASH_BASE + PLAT_FLASH_BANK)
#define BOTH  0x00010001u
#define READY (CFI_STATUS_READY * BOTH)

struct env {
	struct fake_vm *fv;
	char code[64], vars[64];
	bool has_file;
};

static void write_file(const char *path, size_t len, int c)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	for (size_t i = 0; i < len; i++) {
		fputc(c, f);
	}
	fclose(f);
}

static void make(struct env *e)
{
	const struct flash_config unit[] = {
		{.option = "unit 0", .path = e->code, .readonly = true},
		{.option = "unit 1",
		 .path = e->has_file ? e->vars : NULL,
		 .volatile_size = VARS},
	};
	/* RAM of the fake machine is elsewhere on this board: only the bank above it is used */
	struct err err;

	e->fv = fake_vm_new(NULL);
	mem_region_del(e->fv->vm.mem, e->fv->ram);
	e->fv->ram = NULL;
	if (flash_new(&e->fv->vm, unit, 2, &err)) {
		fail_msg("%s", err.msg);
	}
}

static int setup_with(void **state, bool has_file)
{
	struct env *e = calloc(1, sizeof(*e));

	snprintf(e->code, sizeof(e->code), "/tmp/nemu-flash-code-%d", (int)getpid());
	snprintf(e->vars, sizeof(e->vars), "/tmp/nemu-flash-vars-%d", (int)getpid());
	write_file(e->code, 8192, 0x5a);
	write_file(e->vars, VARS, 0xff);
	e->has_file = has_file;
	make(e);
	*state = e;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, true);
}

static int setup_volatile(void **state)
{
	return setup_with(state, false);
}

static int teardown(void **state)
{
	struct env *e = *state;

	if (e->fv) {
		fake_vm_free(e->fv);
	}
	unlink(e->code);
	unlink(e->vars);
	free(e);
	return 0;
}

static void wr(struct env *e, uint32_t off, uint32_t v)
{
	fake_mmio_write(e->fv, BANK1 + off, v, 4);
}

static void cmd(struct env *e, uint32_t off, uint8_t c)
{
	wr(e, off, c * BOTH);
}

static uint32_t rd(struct env *e, uint32_t off)
{
	return (uint32_t)fake_mmio_read(e->fv, BANK1 + off, 4);
}

static void erase(struct env *e, uint32_t off)
{
	cmd(e, off, CFI_CMD_LOCK_SETUP);
	cmd(e, off, CFI_CMD_CONFIRM); /* unlocks */
	cmd(e, off, CFI_CMD_ERASE);
	cmd(e, off, CFI_CMD_CONFIRM);
	assert_int_equal(rd(e, off), READY);
	cmd(e, off, CFI_CMD_READ_ARRAY);
}

static void buffered(struct env *e, uint32_t off, const uint32_t *words, unsigned n)
{
	cmd(e, off, CFI_CMD_BUFFER);
	assert_int_equal(rd(e, off) & READY, READY);
	wr(e, off, (n - 1) * BOTH);
	for (unsigned i = 0; i < n; i++) {
		wr(e, off + 4 * i, words[i]);
	}
	cmd(e, off, CFI_CMD_CONFIRM);
	assert_int_equal(rd(e, off), READY);
	cmd(e, off, CFI_CMD_READ_ARRAY);
}

static void test_program(void **state)
{
	struct env *e = *state;
	uint32_t words[32], code;
	uint8_t *file = malloc(VARS);
	FILE *f;

	assert_int_equal(mem_read(e->fv->vm.mem, PLAT_FLASH_BASE + 4096, &code, 4), 0);
	assert_int_equal(code, 0x5a5a5a5a);
	for (unsigned i = 0; i < 32; i++) {
		words[i] = 0x01020304u * (i + 1);
	}
	buffered(e, 256 * KiB - 128, words, 32);
	assert_int_equal(rd(e, 256 * KiB - 4), words[31]);
	/* one word, bits are cleared only */
	cmd(e, 256 * KiB, CFI_CMD_PROGRAM);
	wr(e, 256 * KiB, 0x12345678);
	assert_int_equal(rd(e, 256 * KiB), READY);
	cmd(e, 256 * KiB, CFI_CMD_PROGRAM);
	wr(e, 256 * KiB, 0xff0000ff);
	cmd(e, 256 * KiB, CFI_CMD_READ_ARRAY);
	assert_int_equal(rd(e, 256 * KiB), 0x12000078);
	/* erase takes a whole block, and only that */
	erase(e, 1000 * 4);
	assert_int_equal(rd(e, 256 * KiB - 4), UINT32_MAX);
	assert_int_equal(rd(e, 256 * KiB), 0x12000078);
	for (int i = 0; i < 400; i++) {
		loop_clock_advance(e->fv->vm.loop, 20000000);
		loop_step(e->fv->vm.loop, 0);
	}
	f = fopen(e->vars, "r");
	assert_int_equal(fread(file, 1, VARS, f), VARS);
	fclose(f);
	assert_int_equal(file[256 * KiB], 0x78);
	assert_int_equal(file[256 * KiB - 1], 0xff);
	free(file);
}

static void test_identify(void **state)
{
	struct env *e = *state;

	cmd(e, 0, CFI_CMD_READ_ID);
	assert_int_equal(rd(e, 0), CFI_INTEL_MANUFACTURER * BOTH);
	assert_int_equal(rd(e, 8), 0); /* not locked */
	cmd(e, 0, CFI_CMD_QUERY);
	assert_int_equal(rd(e, 0x10 * 4), 'Q' * BOTH);
	assert_int_equal(rd(e, 0x2d * 4), 2 * BOTH); /* three blocks */
	assert_int_equal(rd(e, 0x30 * 4), 2 * BOTH); /* 512 * 256 bytes of a chip */
	assert_int_equal(fake_mmio_read(e->fv, BANK1 + 0x10 * 4 + 2, 2), 'Q');
	cmd(e, 0, CFI_CMD_READ_ARRAY);
}

static void test_malformed(void **state)
{
	struct env *e = *state;
	const uint32_t bad = READY | (CFI_STATUS_ERASE_ERROR | CFI_STATUS_PROGRAM_ERROR) * BOTH;

	cmd(e, 0, CFI_CMD_ERASE);
	cmd(e, 0, 0x12);
	assert_int_equal(rd(e, 0), bad);
	cmd(e, 0, CFI_CMD_CLEAR_STATUS);
	cmd(e, 0, CFI_CMD_BUFFER);
	wr(e, 0, 32 * BOTH); /* one word too many */
	assert_int_equal(rd(e, 0), bad);
	cmd(e, 0, CFI_CMD_CLEAR_STATUS);
	/* not aligned, at the end of a block of the file and of everything */
	cmd(e, 0, CFI_CMD_PROGRAM);
	fake_mmio_write(e->fv, BANK1 + 4094, 0, 4);
	cmd(e, 0, CFI_CMD_READ_STATUS);
	assert_int_equal(rd(e, 0), READY | CFI_STATUS_PROGRAM_ERROR * BOTH);
	cmd(e, 0, CFI_CMD_PROGRAM);
	fake_mmio_write(e->fv, BANK1 + VARS - 2, 0, 4);
	for (unsigned c = 0; c < 256; c++) {
		cmd(e, c * 4096 % VARS, (uint8_t)c);
		fake_mmio_write(e->fv, BANK1 + c, c, 1);
		rd(e, VARS - 4);
	}
	device_list_reset(&e->fv->devices);
	assert_int_equal(rd(e, 512 * KiB), UINT32_MAX);
}

static void test_volatile(void **state)
{
	struct env *e = *state;
	const uint32_t word = 0xcafe1234;

	assert_int_equal(rd(e, 0), 0);
	erase(e, 0);
	assert_int_equal(rd(e, 0), UINT32_MAX);
	buffered(e, 0, &word, 1);
	assert_int_equal(rd(e, 0), word);
	/* a reset keeps it */
	device_list_reset(&e->fv->devices);
	assert_int_equal(rd(e, 0), word);
}

/* In the middle of a buffer. */
static void test_state(void **state)
{
	struct env *e = *state, other = *e;
	struct err err;

	cmd(e, 4096, CFI_CMD_BUFFER);
	wr(e, 4096, 1 * BOTH);
	wr(e, 4096, 0x11111111);
	snprintf(other.vars, sizeof(other.vars), "/tmp/nemu-flash-other-%d", (int)getpid());
	write_file(other.vars, VARS, 0xff);
	make(&other);
	fake_vm_pause(e->fv);
	fake_vm_pause(other.fv);
	assert_int_equal(fake_vm_transfer(e->fv, other.fv, &err), 0);
	device_list_resume(&other.fv->devices);
	wr(&other, 4100, 0x22222222);
	cmd(&other, 4096, CFI_CMD_CONFIRM);
	assert_int_equal(rd(&other, 4096), READY);
	cmd(&other, 4096, CFI_CMD_READ_ARRAY);
	assert_int_equal(rd(&other, 4096), 0x11111111);
	assert_int_equal(rd(&other, 4100), 0x22222222);
	fake_vm_free(other.fv);
	unlink(other.vars);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_program, setup, teardown),
		cmocka_unit_test_setup_teardown(test_identify, setup, teardown),
		cmocka_unit_test_setup_teardown(test_malformed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_volatile, setup_volatile, teardown),
		cmocka_unit_test_setup_teardown(test_state, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
