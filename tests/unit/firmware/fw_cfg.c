/*
 * fw_cfg through its ports: selector, data, directory, DMA with good and hostile descriptors,
 * files that are made when fetched, writable files, state in mid-transfer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fakes/fakes.h"
#include "firmware/fw_cfg.h"
#include "spec/fw_cfg.h"

#define PORT 0x510
#define RAM  (16 * MiB)
#define DESC 0x1000
#define DATA 0x10000

struct env {
	struct fake_vm *fv;
	struct fw_cfg *fw;
	/* refresh */
	unsigned made;
	char content[64];
	/* writable */
	unsigned written;
	uint8_t last[16];
};

static int setup(void **state)
{
	struct env *e = calloc(1, sizeof(*e));

	e->fv = fake_vm_new(NULL);
	assert_int_equal(fw_cfg_new(&e->fv->vm, PORT, &e->fw, NULL), 0);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	fake_vm_free(e->fv);
	free(e);
	return 0;
}

static void sel(struct env *e, uint16_t key)
{
	fake_pio_write(e->fv, PORT, key, 2);
}

static void take(struct env *e, void *buf, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		((uint8_t *)buf)[i] = (uint8_t)fake_pio_read(e->fv, PORT + 1, 1);
	}
}

static uint32_t dma_at(struct env *e, uint64_t desc, uint32_t ctl, uint32_t len, uint64_t gpa)
{
	struct fw_cfg_dma_access d = {be32_of(ctl), be32_of(len), be64_of(gpa)};
	be32 after = be32_of(0xdeadbeef);

	mem_write(e->fv->vm.mem, desc, &d, sizeof(d));
	fake_pio_write(e->fv, PORT + 4, __builtin_bswap32((uint32_t)(desc >> 32)), 4);
	fake_pio_write(e->fv, PORT + 8, __builtin_bswap32((uint32_t)desc), 4);
	mem_read(e->fv->vm.mem, desc, &after, sizeof(after));
	return be32_get(after);
}

static uint32_t dma(struct env *e, uint32_t ctl, uint32_t len, uint64_t gpa)
{
	return dma_at(e, DESC, ctl, len, gpa);
}

static uint16_t find_file(struct env *e, const char *name, uint32_t *size)
{
	struct fw_cfg_wire_file f;
	be32 count;

	sel(e, FW_CFG_FILE_DIR);
	take(e, &count, sizeof(count));
	for (uint32_t i = 0; i < be32_get(count); i++) {
		take(e, &f, sizeof(f));
		if (!strcmp(f.name, name)) {
			*size = be32_get(f.size);
			return be16_get(f.select);
		}
	}
	return 0;
}

static void test_keys(void **state)
{
	struct env *e = *state;
	uint8_t buf[8];

	/* the signature is selected from the start and after a reset */
	take(e, buf, 4);
	assert_memory_equal(buf, "QEMU", 4);
	sel(e, FW_CFG_ID);
	take(e, buf, 8);
	assert_memory_equal(buf, "\3\0\0\0\0\0\0\0", 8); /* zeroes behind the end */
	assert_int_equal(fw_cfg_set_u16(e->fw, FW_CFG_NB_CPUS, 0x1234, NULL), 0);
	sel(e, FW_CFG_NB_CPUS);
	take(e, buf, 2);
	assert_memory_equal(buf, "\x34\x12", 2);
	/* a selection rewinds */
	sel(e, FW_CFG_NB_CPUS);
	assert_int_equal(fake_pio_read(e->fv, PORT + 1, 1), 0x34);
	/* unknown keys read as 0 */
	for (unsigned key = FW_CFG_FILE_FIRST; key < 0x10000; key += 0x111) {
		sel(e, (uint16_t)key);
		assert_int_equal(fake_pio_read(e->fv, PORT + 1, 1), 0);
	}
	device_list_reset(&e->fv->devices);
	take(e, buf, 4);
	assert_memory_equal(buf, "QEMU", 4);
	/* the DMA register says what it is */
	assert_int_equal(fake_pio_read(e->fv, PORT + 4, 4), __builtin_bswap32(0x51454d55));
	assert_int_equal(fake_pio_read(e->fv, PORT + 8, 4), __builtin_bswap32(0x20434647));
	/* odd accesses are harmless */
	fake_pio_write(e->fv, PORT, 0x19, 1);
	fake_pio_write(e->fv, PORT + 1, 0x55, 1);
	fake_pio_write(e->fv, PORT + 2, 0x5555, 2);
	fake_pio_write(e->fv, PORT + 8, 0x55, 1);
	assert_int_equal(fake_pio_read(e->fv, PORT, 2), 0xffff);
	assert_int_equal(fw_cfg_set_key(e->fw, FW_CFG_FILE_DIR, "x", 1, FW_CFG_COPY, NULL),
			 -EINVAL);
	assert_int_equal(fw_cfg_set_key(e->fw, 0x20, strdup("x"), 1, FW_CFG_TAKE, NULL),
			 -EINVAL);
	/* replacing an item while it is selected */
	sel(e, FW_CFG_NB_CPUS);
	assert_int_equal(fw_cfg_set_u32(e->fw, FW_CFG_NB_CPUS, 0x11223344, NULL), 0);
	take(e, buf, 4);
	assert_memory_equal(buf, "\x44\x33\x22\x11", 4);
}

static void test_directory(void **state)
{
	struct env *e = *state;
	struct fw_cfg_wire_file f[3];
	struct err err;
	uint32_t size;
	be32 count;
	char name[64];

	assert_int_equal(fw_cfg_add_file(e->fw, "opt/b", "bb", 2, FW_CFG_BORROW, NULL), 0);
	assert_int_equal(fw_cfg_add_file(e->fw, "etc/c", "ccc", 3, FW_CFG_COPY, NULL), 0);
	assert_int_equal(fw_cfg_add_file(e->fw, "etc/a", strdup("aaaa"), 4, FW_CFG_TAKE, NULL),
			 0);
	sel(e, FW_CFG_FILE_DIR);
	take(e, &count, 4);
	assert_int_equal(be32_get(count), 3);
	take(e, f, sizeof(f));
	assert_string_equal(f[0].name, "etc/a");
	assert_string_equal(f[1].name, "etc/c");
	assert_string_equal(f[2].name, "opt/b");
	assert_int_equal(be32_get(f[0].size), 4);
	assert_int_equal(be16_get(f[0].select), 0x20);
	sel(e, find_file(e, "etc/c", &size));
	take(e, name, 4);
	assert_memory_equal(name, "ccc", 4);

	assert_int_equal(fw_cfg_add_file(e->fw, "etc/c", strdup("x"), 1, FW_CFG_TAKE, &err),
			 -EEXIST);
	assert_non_null(strstr(err.msg, "etc/c"));
	memset(name, 'n', sizeof(name));
	name[56] = 0;
	assert_int_equal(fw_cfg_add_file(e->fw, name, "x", 1, FW_CFG_COPY, &err), -EINVAL);
	name[55] = 0;
	assert_int_equal(fw_cfg_add_file(e->fw, name, "x", 1, FW_CFG_COPY, &err), 0);
	assert_int_equal(find_file(e, name, &size), 0x22);
	assert_int_equal(fw_cfg_add_file(e->fw, "", "x", 1, FW_CFG_COPY, &err), -EINVAL);
	for (int i = 4; i < FW_CFG_MAX_FILES; i++) {
		snprintf(name, sizeof(name), "z%d", i);
		assert_int_equal(fw_cfg_add_file(e->fw, name, NULL, 0, FW_CFG_COPY, &err), 0);
	}
	assert_int_equal(fw_cfg_add_file(e->fw, "zz", "x", 1, FW_CFG_COPY, &err), -ENOSPC);
}

static void test_dma_read(void **state)
{
	struct env *e = *state;
	uint8_t *big = malloc(3 * MiB), *got = malloc(3 * MiB);

	for (size_t i = 0; i < 3 * MiB; i++) {
		big[i] = (uint8_t)(i * 7 + (i >> 12));
	}
	assert_int_equal(
		fw_cfg_set_key(e->fw, FW_CFG_KERNEL_DATA, big, 3 * MiB, FW_CFG_BORROW, NULL),
		0);
	/* select, skip and read in pieces; control is clear each time */
	assert_int_equal(
		dma(e, FW_CFG_KERNEL_DATA << 16 | FW_CFG_DMA_CTL_SELECT | FW_CFG_DMA_CTL_SKIP,
		    100, 0),
		0);
	assert_int_equal(dma(e, FW_CFG_DMA_CTL_READ, 50, DATA), 0);
	mem_read(e->fv->vm.mem, DATA, got, 50);
	assert_memory_equal(got, big + 100, 50);
	assert_int_equal(dma(e, FW_CFG_DMA_CTL_READ, 3 * MiB, DATA), 0);
	mem_read(e->fv->vm.mem, DATA, got, 3 * MiB);
	assert_memory_equal(got, big + 150, 3 * MiB - 150);
	for (size_t i = 3 * MiB - 150; i < 3 * MiB; i++) {
		assert_int_equal(got[i], 0);
	}
	/* selecting alone, then by the port what DMA left there */
	assert_int_equal(dma(e, FW_CFG_KERNEL_DATA << 16 | FW_CFG_DMA_CTL_SELECT, 0, 0), 0);
	assert_int_equal(fake_pio_read(e->fv, PORT + 1, 1), big[0]);
	free(big);
	free(got);
}

static void test_dma_hostile(void **state)
{
	struct env *e = *state;
	uint8_t before[64], after[64], v = 0xaa;
	struct fw_cfg_dma_access d;

	/* no descriptor there; beyond the end; wrapping around */
	dma_at(e, RAM, FW_CFG_DMA_CTL_READ, 4, DATA);
	dma_at(e, RAM - 8, FW_CFG_DMA_CTL_READ, 4, DATA);
	dma_at(e, UINT64_MAX - 3, FW_CFG_DMA_CTL_READ, 4, DATA);
	dma_at(e, 0xb0000000, FW_CFG_DMA_CTL_READ, 4, DATA);
	/* the buffer is no RAM, in part or at all: control is cleared all the same */
	sel(e, FW_CFG_SIGNATURE);
	mem_read(e->fv->vm.mem, RAM - 2, before, 2);
	assert_int_equal(dma(e, FW_CFG_DMA_CTL_READ, 4, RAM - 2), 0);
	mem_read(e->fv->vm.mem, RAM - 2, after, 2);
	assert_memory_equal(before, after, 2);
	assert_int_equal(dma(e, FW_CFG_DMA_CTL_READ, 4, UINT64_MAX - 1), 0);
	assert_int_equal(dma(e, FW_CFG_DMA_CTL_READ, UINT32_MAX, RAM), 0);
	/* 4 GiB from an item of four bytes: bounded */
	mem_write(e->fv->vm.mem, DATA + 4 + MiB, &v, 1);
	assert_int_equal(dma(e, FW_CFG_DMA_CTL_SELECT | FW_CFG_DMA_CTL_READ, UINT32_MAX, DATA),
			 0);
	mem_read(e->fv->vm.mem, DATA, after, 8);
	assert_memory_equal(after, "QEMU\0\0\0\0", 8);
	mem_read(e->fv->vm.mem, DATA + 4 + MiB, after, 1);
	assert_int_equal(after[0], 0xaa);
	assert_int_equal(dma(e, FW_CFG_DMA_CTL_SKIP, UINT32_MAX, 0), 0);
	assert_int_equal(dma(e, FW_CFG_DMA_CTL_SKIP, UINT32_MAX, 0), 0);
	assert_int_equal(fake_pio_read(e->fv, PORT + 1, 1), 0);
	/* writes to what is read-only */
	assert_int_equal(dma(e, FW_CFG_DMA_CTL_SELECT | FW_CFG_DMA_CTL_WRITE, 4, DATA + 64), 0);
	sel(e, FW_CFG_SIGNATURE);
	assert_int_equal(fake_pio_read(e->fv, PORT + 1, 1), 'Q');
	/* nonsense in control, everything at once, nothing at all */
	assert_int_equal(dma(e, 0xffffffff, 16, DATA), 0);
	assert_int_equal(dma(e, 0, 16, DATA), 0);
	assert_int_equal(dma(e, 1, 16, DATA), 0);
	/* the descriptor inside of its own buffer: read once, control cleared at the end */
	assert_int_equal(dma(e, FW_CFG_DMA_CTL_SELECT | FW_CFG_DMA_CTL_READ, 64, DESC), 0);
	mem_read(e->fv->vm.mem, DESC, &d, sizeof(d));
	assert_int_equal(be32_get(d.length), 0);
}

static const void *make(void *opaque, size_t *len)
{
	struct env *e = opaque;

	snprintf(e->content, sizeof(e->content), "made %u", ++e->made);
	*len = strlen(e->content);
	return e->made > 1000 ? NULL : e->content;
}

static void test_refresh(void **state)
{
	struct env *e = *state;
	uint32_t size;
	uint16_t key;
	char buf[16];

	assert_int_equal(fw_cfg_add_file_refresh(e->fw, "etc/made", make, e, NULL), 0);
	key = find_file(e, "etc/made", &size);
	assert_int_equal(size, 6);
	e->made = 8;
	sel(e, key);
	assert_int_equal(e->made, 9);
	take(e, buf, 8);
	assert_memory_equal(buf, "made 9\0", 8);
	/* longer now, and the directory knows */
	find_file(e, "etc/made", &size);
	assert_int_equal(size, 7);
	e->made = 1000;
	find_file(e, "etc/made", &size);
	assert_int_equal(size, 0);
	sel(e, key);
	assert_int_equal(fake_pio_read(e->fv, PORT + 1, 1), 0);
}

static void on_write(void *opaque, const void *data, size_t len)
{
	struct env *e = opaque;

	e->written++;
	assert_int_equal(len, sizeof(e->last));
	memcpy(e->last, data, len);
}

static void test_writable(void **state)
{
	struct env *e = *state;
	struct err err;
	uint32_t size;
	uint16_t key;
	char name[8];

	assert_int_equal(fw_cfg_add_file_writable(e->fw, "etc/w", "0123456789abcdef", 16,
						  on_write, e, NULL),
			 0);
	key = find_file(e, "etc/w", &size);
	assert_int_equal(size, 16);
	mem_write(e->fv->vm.mem, DATA, "ABCD", 4);
	assert_int_equal(
		dma(e, (uint32_t)key << 16 | FW_CFG_DMA_CTL_SELECT | FW_CFG_DMA_CTL_SKIP, 4, 0),
		0);
	assert_int_equal(dma(e, FW_CFG_DMA_CTL_WRITE, 4, DATA), 0);
	assert_int_equal(e->written, 1);
	assert_memory_equal(e->last, "0123ABCD89abcdef", 16);
	/* too long, from nowhere, through the data port */
	assert_int_equal(dma(e, FW_CFG_DMA_CTL_WRITE, 9, DATA), 0);
	assert_int_equal(dma(e, FW_CFG_DMA_CTL_WRITE, 4, RAM), 0);
	fake_pio_write(e->fv, PORT + 1, 'x', 1);
	assert_int_equal(e->written, 1);
	assert_int_equal(dma(e, FW_CFG_DMA_CTL_WRITE, 8, DATA), 0);
	assert_memory_equal(e->last, "0123ABCDABCD\0\0\0\0", 16);
	for (int i = 1; i < 8; i++) {
		snprintf(name, sizeof(name), "w%d", i);
		assert_int_equal(
			fw_cfg_add_file_writable(e->fw, name, NULL, 16, on_write, e, &err), 0);
	}
	assert_int_equal(fw_cfg_add_file_writable(e->fw, "w8", NULL, 16, on_write, e, &err),
			 -EINVAL);
	assert_int_equal(fw_cfg_add_file_writable(e->fw, "w0", NULL, 0, on_write, e, &err),
			 -EINVAL);
}

static void test_state(void **state)
{
	struct env *e = *state;
	struct env *to = NULL, *bad = NULL;
	struct err err;
	uint32_t size;
	uint8_t v[4];

	setup((void **)&to);
	setup((void **)&bad);
	for (int i = 0; i < 2; i++) {
		struct env *x = i ? to : e;

		assert_int_equal(
			fw_cfg_add_file(x->fw, "etc/a", "abcdef", 6, FW_CFG_BORROW, NULL), 0);
		assert_int_equal(fw_cfg_add_file_writable(x->fw, "etc/w", "0123456789abcdef",
							  16, on_write, x, NULL),
				 0);
	}
	mem_write(e->fv->vm.mem, DATA, "wxyz", 4);
	dma(e,
	    (uint32_t)find_file(e, "etc/w", &size) << 16 | FW_CFG_DMA_CTL_SELECT |
		    FW_CFG_DMA_CTL_WRITE,
	    4, DATA);
	/* in the middle of a file, half of a DMA address written */
	sel(e, find_file(e, "etc/a", &size));
	take(e, v, 2);
	fake_pio_write(e->fv, PORT + 4, __builtin_bswap32(1), 4);
	fake_vm_pause(e->fv);
	fake_vm_pause(to->fv);
	assert_int_equal(fake_vm_transfer(e->fv, to->fv, &err), 0);
	assert_int_equal(to->written, 1);
	assert_memory_equal(to->last, "wxyz456789abcdef", 16);
	take(to, v, 4);
	assert_memory_equal(v, "cdef", 4);
	/* a machine without the file */
	fake_vm_pause(bad->fv);
	assert_int_equal(fake_vm_transfer(e->fv, bad->fv, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "etc/w"));
	teardown((void **)&to);
	teardown((void **)&bad);
}

/* Two vCPUs at once: everything happens on the control loop. */
static void *cpu_main(void *arg)
{
	struct env *e = arg;
	struct fake_cpu cpu;

	fake_cpu_init(&cpu, e->fv);
	for (int i = 0; i < 2000; i++) {
		fake_cpu_pio_write(&cpu, PORT, (uint32_t)(i % 3 ? FW_CFG_FILE_DIR : 0x20), 2);
		fake_cpu_pio_read(&cpu, PORT + 1, 1);
		fake_cpu_pio_write(&cpu, PORT + 4, 0, 4);
		fake_cpu_pio_write(&cpu, PORT + 8, __builtin_bswap32(DESC), 4);
	}
	fake_cpu_fini(&cpu);
	return NULL;
}

struct joiner {
	struct env *e;
	_Atomic bool done;
};

static void *join_main(void *arg)
{
	struct joiner *j = arg;
	pthread_t t[2];

	for (int i = 0; i < 2; i++) {
		assert_int_equal(pthread_create(&t[i], NULL, cpu_main, j->e), 0);
	}
	for (int i = 0; i < 2; i++) {
		pthread_join(t[i], NULL);
	}
	j->done = true;
	loop_stop(j->e->fv->vm.loop);
	return NULL;
}

static void test_threads(void **state)
{
	struct env *e = *state;
	struct joiner j = {.e = e};
	struct fw_cfg_dma_access d = {be32_of(FW_CFG_DMA_CTL_READ), be32_of(4), be64_of(DATA)};
	pthread_t t;

	assert_int_equal(fw_cfg_add_file_refresh(e->fw, "etc/made", make, e, NULL), 0);
	mem_write(e->fv->vm.mem, DESC, &d, sizeof(d));
	assert_int_equal(pthread_create(&t, NULL, join_main, &j), 0);
	while (!j.done) {
		loop_step(e->fv->vm.loop, 10);
	}
	pthread_join(t, NULL);
	assert_true(e->made > 2000);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_keys),	 T(test_directory), T(test_dma_read), T(test_dma_hostile),
		T(test_refresh), T(test_writable),  T(test_state),    T(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
