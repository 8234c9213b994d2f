/*
 * -cpu on Arm; kernels for direct boot: plain and packed, headers that lie, files that are cut.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "arch/arm64/cpu_option.h"
#include "arch/arm64/linux_boot.h"

#define RAM_BASE (1 * GiB)
#define RAM_SIZE (16 * MiB)
#define BASE	 (RAM_BASE + 2 * MiB)
#define FILE_LEN (300 * 1024)

struct env {
	char path[64], initrd[64];
	struct mem *m;
};

static void put64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, sizeof(v));
}

static void make_image(uint8_t *p, uint64_t text_offset, uint64_t size, uint64_t flags)
{
	for (size_t i = 0; i < FILE_LEN; i++) {
		p[i] = (uint8_t)(i * 7 + (i >> 10));
	}
	memset(p, 0, 64);
	put64(p + 8, text_offset);
	put64(p + 16, size);
	put64(p + 24, flags);
	memcpy(p + 56, "ARM\x64", 4);
}

static void write_file(const char *path, const uint8_t *p, size_t len, bool packed)
{
	if (packed) {
		gzFile g = gzopen(path, "wb");

		assert_int_equal(gzwrite(g, p, (unsigned)len), len);
		gzclose(g);
	} else {
		int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

		assert_int_equal(write(fd, p, len), len);
		close(fd);
	}
}

static int setup(void **state)
{
	struct env *e = calloc(1, sizeof(*e));
	struct mem_region *r;

	snprintf(e->path, sizeof(e->path), "/tmp/nemu-arm64-%d", (int)getpid());
	snprintf(e->initrd, sizeof(e->initrd), "/tmp/nemu-arm64-initrd-%d", (int)getpid());
	assert_int_equal(mem_new(&e->m), 0);
	assert_int_equal(mem_region_add(e->m, "ram", RAM_BASE, RAM_SIZE, MEM_RAM, 0, &r, NULL),
			 0);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	unlink(e->path);
	unlink(e->initrd);
	mem_free(e->m);
	free(e);
	return 0;
}

static int load(struct env *e, bool initrd, struct arm64_linux_entry *out, struct err *err)
{
	struct arm64_linux_config c = {
		.kernel_name = "KERNEL",
		.initrd_name = initrd ? "INITRD" : NULL,
		.initrd_fd = -1,
		.base = BASE,
		.end = RAM_BASE + RAM_SIZE,
	};
	int ret;

	c.kernel_fd = open(e->path, O_RDONLY);
	assert_true(c.kernel_fd >= 0);
	if (initrd) {
		c.initrd_fd = open(e->initrd, O_RDONLY);
	}
	ret = arm64_linux_load(e->m, &c, out, err);
	close(c.kernel_fd);
	if (initrd) {
		close(c.initrd_fd);
	}
	return ret;
}

static void check_good(struct env *e, bool packed)
{
	uint8_t *p = malloc(FILE_LEN), *got = malloc(FILE_LEN);
	struct arm64_linux_entry entry;
	struct err err;

	make_image(p, 0x80000, 2 * MiB, 0xa);
	write_file(e->path, p, FILE_LEN, packed);
	write_file(e->initrd, p + 100, 1000, false);
	assert_int_equal(load(e, true, &entry, &err), 0);
	assert_int_equal(entry.entry, BASE + 0x80000);
	assert_int_equal(mem_read(e->m, entry.entry, got, FILE_LEN), 0);
	assert_memory_equal(got, p, FILE_LEN);
	assert_true(entry.initrd_start >= entry.entry + 2 * MiB);
	assert_int_equal(entry.initrd_end - entry.initrd_start, 1000);
	assert_int_equal(mem_read(e->m, entry.initrd_start, got, 1000), 0);
	assert_memory_equal(got, p + 100, 1000);
	free(p);
	free(got);
}

static void test_plain(void **state)
{
	check_good(*state, false);
}

static void test_packed(void **state)
{
	check_good(*state, true);
}

static void refused(struct env *e, int want, const char *words)
{
	struct arm64_linux_entry entry;
	struct err err;

	assert_int_equal(load(e, false, &entry, &err), want);
	assert_non_null(strstr(err.msg, "-kernel KERNEL"));
	assert_non_null(strstr(err.msg, words));
}

static void test_bad_kernels(void **state)
{
	struct env *e = *state;
	uint8_t *p = malloc(FILE_LEN), *packed;
	FILE *f;
	long len;

	make_image(p, 0, 2 * MiB, 0);
	p[56] = 'X';
	write_file(e->path, p, FILE_LEN, false);
	refused(e, -EINVAL, "is no Arm kernel");
	write_file(e->path, p, 10, false);
	refused(e, -EINVAL, "is no Arm kernel");
	make_image(p, 0, 0, 0);
	write_file(e->path, p, FILE_LEN, false);
	refused(e, -EINVAL, "before Linux 3.17");
	make_image(p, 0, 2 * MiB, 1);
	write_file(e->path, p, FILE_LEN, false);
	refused(e, -EINVAL, "big-endian");
	make_image(p, 4 * MiB, 2 * MiB, 0);
	write_file(e->path, p, FILE_LEN, false);
	refused(e, -EINVAL, "makes no sense");
	make_image(p, 0, RAM_SIZE, 0);
	write_file(e->path, p, FILE_LEN, true);
	refused(e, -ENOMEM, "larger -m");
	/* cut, and with a wrong byte */
	make_image(p, 0, 2 * MiB, 0);
	write_file(e->path, p, FILE_LEN, true);
	f = fopen(e->path, "r");
	fseek(f, 0, SEEK_END);
	len = ftell(f);
	rewind(f);
	packed = malloc((size_t)len);
	assert_int_equal(fread(packed, 1, (size_t)len, f), len);
	fclose(f);
	write_file(e->path, packed, (size_t)len / 2, false);
	refused(e, -EINVAL, "damaged");
	packed[len / 2] ^= 0x55;
	write_file(e->path, packed, (size_t)len, false);
	refused(e, -EINVAL, "damaged");
	free(packed);
	free(p);
}

/* Header says little, file has more than there is RAM: nothing is written beyond. */
static void test_too_long(void **state)
{
	struct env *e = *state;
	uint8_t *p = calloc(1, RAM_SIZE);

	make_image(p, 0, 64 * 1024, 0);
	write_file(e->path, p, RAM_SIZE, true);
	refused(e, -ENOMEM, "larger -m");
	free(p);
}

static void test_cpu_option(void **state)
{
	struct arm64_cpu_option o;
	struct err err;

	assert_int_equal(arm64_cpu_parse(&o, "host", &err), 0);
	assert_false(o.no_pmu || o.no_sve || o.no_pauth);
	assert_int_equal(arm64_cpu_parse(&o, "max,pmu=off,sve=on,pauth=off", &err), 0);
	assert_true(o.no_pmu && !o.no_sve && o.no_pauth);
	assert_int_equal(arm64_cpu_parse(&o, "cortex-a72", &err), -EINVAL);
	assert_non_null(strstr(err.msg, "-cpu host"));
	assert_int_equal(arm64_cpu_parse(&o, "host,pmu=maybe", &err), -EINVAL);
	assert_int_equal(arm64_cpu_parse(&o, "host,avx=on", &err), -EINVAL);
	assert_non_null(strstr(err.msg, "avx"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_plain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_packed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_kernels, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_long, setup, teardown),
		cmocka_unit_test(test_cpu_option),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
