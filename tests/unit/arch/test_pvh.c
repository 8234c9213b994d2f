/* PVH boot of ELF files: what the guest finds, and files from hell. Fields by their offsets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/x86/linux_boot.h"
#include "base/util.h"

#define PHDRS	  64
#define NOTE_OFF  0x200
#define NOTE_LEN  (36 + 20)
#define TEXT_OFF  0x400
#define TEXT_LEN  3000
#define DATA_OFF  (TEXT_OFF + TEXT_LEN)
#define DATA_LEN  100
#define FILE_SIZE (DATA_OFF + DATA_LEN)
#define ENTRY	  (2 * MiB + 0x50)

static void put(uint8_t *f, unsigned at, uint64_t v, unsigned n)
{
	memcpy(f + at, &v, n);
}

static void phdr(uint8_t *f, unsigned i, uint32_t type, uint64_t off, uint64_t paddr,
		 uint64_t filesz, uint64_t memsz)
{
	unsigned at = PHDRS + i * 56;

	put(f, at, type, 4);
	put(f, at + 8, off, 8);
	put(f, at + 16, UINT64_C(0xffffffff80000000) + paddr, 8);
	put(f, at + 24, paddr, 8);
	put(f, at + 32, filesz, 8);
	put(f, at + 40, memsz, 8);
	put(f, at + 48, 4, 8);
}

/* Two segments, the second with memory that is not in the file, and two notes. */
static void good(uint8_t *f)
{
	memset(f, 0, FILE_SIZE);
	memcpy(f, "\177ELF\2\1\1", 7);
	put(f, 16, 2, 2);  /* ET_EXEC */
	put(f, 18, 62, 2); /* EM_X86_64 */
	put(f, 32, PHDRS, 8);
	put(f, 54, 56, 2);
	put(f, 56, 3, 2);
	phdr(f, 0, 1, TEXT_OFF, 2 * MiB, TEXT_LEN, TEXT_LEN);
	phdr(f, 1, 1, DATA_OFF, 3 * MiB, DATA_LEN, MiB);
	phdr(f, 2, 4, NOTE_OFF, 2 * MiB, NOTE_LEN, NOTE_LEN);
	/* somebody else's note of the same type, then ours */
	put(f, NOTE_OFF, 6, 4);
	put(f, NOTE_OFF + 4, 14, 4);
	put(f, NOTE_OFF + 8, 18, 4);
	memcpy(f + NOTE_OFF + 12, "Other", 6);
	put(f, NOTE_OFF + 36, 4, 4);
	put(f, NOTE_OFF + 40, 4, 4);
	put(f, NOTE_OFF + 44, 18, 4);
	memcpy(f + NOTE_OFF + 48, "Xen", 4);
	put(f, NOTE_OFF + 52, ENTRY, 4);
	for (unsigned i = 0; i < TEXT_LEN + DATA_LEN; i++) {
		f[TEXT_OFF + i] = (uint8_t)(i * 7 + 1);
	}
}

static int file_of(const void *data, size_t len)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	return fd;
}

struct guest {
	struct mem *mem;
	struct x86_e820 e820[4];
	struct x86_linux_config cfg;
};

static void guest_init(struct guest *g, uint64_t low)
{
	struct mem_region *r;

	assert_int_equal(mem_new(&g->mem), 0);
	assert_int_equal(mem_region_add(g->mem, "low", 0, low, MEM_RAM, 0, &r, NULL), 0);
	assert_int_equal(
		mem_region_add(g->mem, "high", 4 * GiB, 16 * MiB, MEM_RAM, 0, &r, NULL), 0);
	g->e820[0] = (struct x86_e820){0, 0xA0000, X86_E820_RAM};
	g->e820[1] = (struct x86_e820){MiB, low - MiB, X86_E820_RAM};
	g->e820[2] = (struct x86_e820){0xB0000000, 256 * MiB, X86_E820_RESERVED};
	g->e820[3] = (struct x86_e820){4 * GiB, 16 * MiB, X86_E820_RAM};
	g->cfg = (struct x86_linux_config){
		.kernel_name = "vmlinux",
		.kernel_fd = -1,
		.initrd_fd = -1,
		.cmdline = "console=ttyS0 quiet",
		.e820 = g->e820,
		.e820_count = 4,
		.rsdp = 0xE0000,
	};
}

static int load(struct guest *g, const uint8_t *f, size_t size, struct x86_linux_entry *e,
		struct err *err)
{
	int r;

	g->cfg.kernel_fd = file_of(f, size);
	r = x86_linux_load(g->mem, &g->cfg, e, err);
	close(g->cfg.kernel_fd);
	return r;
}

static uint64_t peek(struct mem *m, gpa_t at, unsigned n)
{
	uint64_t v = 0;

	assert_int_equal(mem_read(m, at, &v, n), 0);
	return v;
}

static void expect_bytes(struct mem *m, gpa_t at, const uint8_t *want, size_t n)
{
	uint8_t *got = malloc(n);

	assert_int_equal(mem_read(m, at, got, n), 0);
	assert_memory_equal(got, want, n);
	free(got);
}

static void test_load(void **state)
{
	uint8_t f[FILE_SIZE], initrd[9000], dirt[4096];
	static uint8_t zero[MiB];
	struct x86_linux_entry e;
	struct guest g;
	char line[64];
	gpa_t si, map;

	good(f);
	memset(initrd, 0x5A, sizeof(initrd));
	memset(dirt, 0xFF, sizeof(dirt));
	guest_init(&g, 64 * MiB);
	g.cfg.initrd_name = "initrd";
	g.cfg.initrd_fd = file_of(initrd, sizeof(initrd));
	/* what a guest before a reset has left where the kernel counts on zeroes */
	assert_int_equal(mem_write(g.mem, 3 * MiB + DATA_LEN, dirt, sizeof(dirt)), 0);
	assert_int_equal(mem_write(g.mem, 4 * MiB - 1, dirt, 2), 0);
	assert_int_equal(load(&g, f, FILE_SIZE, &e, NULL), 0);

	assert_true(e.pvh);
	assert_int_equal(e.entry, ENTRY);
	expect_bytes(g.mem, 2 * MiB, f + TEXT_OFF, TEXT_LEN);
	expect_bytes(g.mem, 3 * MiB, f + DATA_OFF, DATA_LEN);
	expect_bytes(g.mem, 3 * MiB + DATA_LEN, zero, MiB - DATA_LEN);
	assert_int_equal(peek(g.mem, 4 * MiB, 1), 0xFF); /* and not further */

	si = e.boot_params;
	assert_int_equal(peek(g.mem, si, 4), 0x336ec578);
	assert_int_equal(peek(g.mem, si + 4, 4), 1);
	assert_int_equal(peek(g.mem, si + 8, 4), 0);
	assert_int_equal(peek(g.mem, si + 12, 4), 1);
	assert_int_equal(peek(g.mem, peek(g.mem, si + 16, 8), 8), 64 * MiB - 3 * 4096);
	assert_int_equal(peek(g.mem, peek(g.mem, si + 16, 8) + 8, 8), sizeof(initrd));
	expect_bytes(g.mem, 64 * MiB - 3 * 4096, initrd, sizeof(initrd));
	assert_int_equal(mem_read(g.mem, peek(g.mem, si + 24, 8), line, sizeof(line)), 0);
	assert_string_equal(line, "console=ttyS0 quiet");
	assert_int_equal(peek(g.mem, si + 32, 8), 0xE0000);
	map = peek(g.mem, si + 40, 8);
	assert_int_equal(peek(g.mem, si + 48, 4), 4);
	assert_int_equal(peek(g.mem, map + 2 * 24, 8), 0xB0000000);
	assert_int_equal(peek(g.mem, map + 2 * 24 + 8, 8), 256 * MiB);
	assert_int_equal(peek(g.mem, map + 2 * 24 + 16, 4), 2);
	assert_int_equal(peek(g.mem, map + 3 * 24, 8), 4 * GiB);

	/* no initrd, no module */
	close(g.cfg.initrd_fd);
	g.cfg.initrd_name = NULL;
	assert_int_equal(load(&g, f, FILE_SIZE, &e, NULL), 0);
	assert_int_equal(peek(g.mem, si + 12, 4), 0);
	assert_int_equal(peek(g.mem, si + 16, 8), 0);
	mem_free(g.mem);
}

/* Notes of 8 bytes, and in segments that are aligned to 8. */
static void test_notes(void **state)
{
	struct x86_linux_entry e;
	uint8_t f[FILE_SIZE];
	struct guest g;

	guest_init(&g, 64 * MiB);
	good(f);
	put(f, NOTE_OFF + 40, 8, 4);
	put(f, PHDRS + 2 * 56 + 32, NOTE_LEN + 4, 8);
	assert_int_equal(load(&g, f, FILE_SIZE, &e, NULL), 0);
	assert_int_equal(e.entry, ENTRY);
	/* aligned to 8: a name of 5 makes 12 + 5 → 24, 14 bytes → 40 */
	good(f);
	put(f, PHDRS + 2 * 56 + 48, 8, 8);
	put(f, PHDRS + 2 * 56 + 32, 40 + 20, 8);
	memmove(f + NOTE_OFF + 40, f + NOTE_OFF + 36, 20);
	assert_int_equal(load(&g, f, FILE_SIZE, &e, NULL), 0);
	assert_int_equal(e.entry, ENTRY);
	mem_free(g.mem);
}

static void test_refusals(void **state)
{
	static const struct {
		unsigned at, n;
		uint64_t v;
		int e;
		const char *says;
	} bad[] = {
		{4, 1, 1, EINVAL, "64-bit program"},
		{5, 1, 2, EINVAL, "64-bit program"},
		{16, 2, 1, EINVAL, "64-bit program"},
		{18, 2, 183, EINVAL, "64-bit program"},
		{32, 8, FILE_SIZE - 100, EINVAL, "truncated"},
		{32, 8, UINT64_MAX - 8, EINVAL, "truncated"},
		{54, 2, 32, EINVAL, "of 32 bytes"},
		{56, 2, 0, EINVAL, "0 program headers"},
		{56, 2, 65, EINVAL, "65 program headers"},
		/* the first segment: offset, address, sizes */
		{PHDRS + 8, 8, FILE_SIZE - 10, EINVAL, "truncated"},
		{PHDRS + 8, 8, UINT64_MAX, EINVAL, "truncated"},
		{PHDRS + 24, 8, 0, EINVAL, "cannot be"},
		{PHDRS + 24, 8, MiB - 1, EINVAL, "cannot be"},
		{PHDRS + 24, 8, 64 * MiB - 1, ENOMEM, "-m"},
		{PHDRS + 24, 8, 0xB0000000, ENOMEM, "-m"},
		{PHDRS + 24, 8, 4 * GiB, ENOMEM, "-m"},
		{PHDRS + 24, 8, UINT64_MAX - 100, ENOMEM, "-m"},
		{PHDRS + 24, 8, 16 * MiB, EINVAL, "entry"},
		{PHDRS + 32, 8, TEXT_LEN + 1, EINVAL, "cannot be"},
		{PHDRS + 32, 8, 0x50, EINVAL, "entry"},
		{PHDRS + 40, 8, 0, EINVAL, "cannot be"},
		{PHDRS + 40, 8, UINT64_MAX, ENOMEM, "-m"},
		/* the notes: kind, place, size */
		{PHDRS + 112, 4, 6, EINVAL, "without a PVH entry"},
		{PHDRS + 120, 8, FILE_SIZE, EINVAL, "truncated"},
		{PHDRS + 144, 8, 0, EINVAL, "without a PVH entry"},
		{PHDRS + 144, 8, NOTE_LEN - 1, EINVAL, "without a PVH entry"},
		{PHDRS + 144, 8, UINT64_MAX, EINVAL, "without a PVH entry"},
		{NOTE_OFF, 4, UINT32_MAX, EINVAL, "without a PVH entry"},
		{NOTE_OFF + 4, 4, UINT32_MAX, EINVAL, "without a PVH entry"},
		{NOTE_OFF + 36, 4, 3, EINVAL, "without a PVH entry"},
		{NOTE_OFF + 40, 4, 2, EINVAL, "without a PVH entry"},
		{NOTE_OFF + 44, 4, 17, EINVAL, "without a PVH entry"},
		{NOTE_OFF + 48, 4, 0x58, EINVAL, "without a PVH entry"},
		{NOTE_OFF + 52, 4, 0, EINVAL, "entry"},
		{NOTE_OFF + 52, 4, 2 * MiB + TEXT_LEN, EINVAL, "entry"},
		{NOTE_OFF + 52, 4, 3 * MiB + DATA_LEN, EINVAL,
		 "entry"}, /* nothing of the file */
	};
	struct x86_linux_entry e;
	uint8_t f[FILE_SIZE];
	struct guest g;

	guest_init(&g, 64 * MiB);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err err = {0};

		good(f);
		put(f, bad[i].at, bad[i].v, bad[i].n);
		assert_int_equal(load(&g, f, FILE_SIZE, &e, &err), -bad[i].e);
		if (!strstr(err.msg, bad[i].says) || !strstr(err.msg, "vmlinux")) {
			fail_msg("%#x: '%s' lacks '%s'", bad[i].at, err.msg, bad[i].says);
		}
	}
	/* every length: an answer with a sentence */
	good(f);
	for (unsigned size = 1; size < FILE_SIZE; size++) {
		struct err err = {0};

		assert_int_equal(load(&g, f, size, &e, &err), -EINVAL);
		assert_non_null(strstr(err.msg, "vmlinux"));
	}
	assert_int_equal(peek(g.mem, 2 * MiB, 8), 0); /* nothing was copied on the way */
	mem_free(g.mem);
}

static void test_limits(void **state)
{
	uint8_t f[FILE_SIZE], initrd[4096] = {1};
	struct x86_linux_entry e;
	struct err err = {0};
	struct guest g;
	char *line = malloc(600 * KiB);

	good(f);
	guest_init(&g,
		   4 * MiB); /* the kernel ends where memory does; the initrd goes below it */
	g.cfg.initrd_name = "initrd";
	g.cfg.initrd_fd = file_of(initrd, sizeof(initrd));
	assert_int_equal(load(&g, f, FILE_SIZE, &e, NULL), 0);
	assert_int_equal(peek(g.mem, peek(g.mem, e.boot_params + 16, 8), 8), 2 * MiB - 4096);
	assert_int_equal(ftruncate(g.cfg.initrd_fd, 2 * MiB), 0);
	assert_int_equal(load(&g, f, FILE_SIZE, &e, &err), -ENOMEM);
	assert_non_null(strstr(err.msg, "-initrd initrd"));
	close(g.cfg.initrd_fd);
	g.cfg.initrd_name = NULL;

	memset(line, 'x', 600 * KiB);
	line[600 * KiB - 1] = 0;
	g.cfg.cmdline = line;
	assert_int_equal(load(&g, f, FILE_SIZE, &e, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "-append"));
	line[0x9F000 - 0x20000 - 1] = 0;
	assert_int_equal(load(&g, f, FILE_SIZE, &e, &err), 0);
	free(line);
	mem_free(g.mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_notes),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
