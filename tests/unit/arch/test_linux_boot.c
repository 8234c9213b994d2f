/* arch/x86/linux_boot.h: headers from hell, placement, what the guest finds in memory. */
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

#define SETUP_SECTS 3
#define SETUP_SIZE  ((SETUP_SECTS + 1) * 512)
#define PAYLOAD	    5000
#define FILE_SIZE   (SETUP_SIZE + PAYLOAD)

static void put(uint8_t *f, unsigned at, uint64_t v, unsigned n)
{
	memcpy(f + at, &v, n);
}

/* A bzImage as boot.rst describes it: the fields by their offsets, not by a structure. */
static void good(uint8_t *f)
{
	memset(f, 0, FILE_SIZE);
	put(f, 0x1F1, SETUP_SECTS, 1);
	put(f, 0x1F4, (PAYLOAD + 15) / 16, 4); /* syssize */
	put(f, 0x1FE, 0xAA55, 2);
	put(f, 0x200, 0x6AEB, 2); /* jump: the header ends at 0x26C */
	put(f, 0x202, 0x53726448, 4);
	put(f, 0x206, 0x20F, 2);
	put(f, 0x211, 1, 1);	      /* loaded high */
	put(f, 0x22C, 0x7FFFFFFF, 4); /* initrd_addr_max */
	put(f, 0x230, 0x200000, 4);
	put(f, 0x234, 1, 1); /* relocatable */
	put(f, 0x236, 1, 2); /* xloadflags: 64-bit entry */
	put(f, 0x238, 2047, 4);
	put(f, 0x258, 16 * MiB, 8);
	put(f, 0x260, 8 * MiB, 4);
	for (unsigned i = 0; i < PAYLOAD; i++) {
		f[SETUP_SIZE + i] = (uint8_t)(i * 7 + 1);
	}
}

static int check(const uint8_t *f, uint64_t size, struct x86_linux_kernel *k, struct err *err)
{
	/* an exact copy, so that a sanitizer sees a read behind it */
	size_t n = MIN(size, X86_LINUX_HEADER_SIZE);
	uint8_t *head = malloc(n ? n : 1);
	int r;

	memcpy(head, f, n);
	r = x86_linux_check(head, n, size, "vmlinuz", k, err);
	free(head);
	return r;
}

static void test_good_header(void **state)
{
	uint8_t f[FILE_SIZE];
	struct x86_linux_kernel k;

	good(f);
	assert_int_equal(check(f, FILE_SIZE, &k, NULL), 0);
	assert_int_equal(k.setup_size, SETUP_SIZE);
	assert_int_equal(k.payload_size, PAYLOAD);
	assert_int_equal(k.pref_address, 16 * MiB);
	assert_int_equal(k.alignment, 2 * MiB);
	assert_int_equal(k.init_size, 8 * MiB);
	assert_int_equal(k.cmdline_max, 2047);
	assert_int_equal(k.initrd_addr_max, 0x7FFFFFFF);
	assert_true(k.relocatable);
	put(f, 0x1F1, 0, 1); /* zero means four */
	put(f, 0x1F4, 1, 4);
	assert_int_equal(check(f, FILE_SIZE, &k, NULL), 0);
	assert_int_equal(k.setup_size, 5 * 512);
	/* signed kernels carry their signature behind what syssize counts */
	good(f);
	put(f, 0x1F4, PAYLOAD / 16 - 20, 4);
	assert_int_equal(check(f, FILE_SIZE, &k, NULL), 0);
}

static void test_bad_headers(void **state)
{
	static const struct {
		unsigned at, n;
		uint64_t v;
		const char *says;
	} bad[] = {
		{0x1FE, 2, 0xAA54, "not a Linux kernel"},
		{0x202, 4, 0x53726449, "not a Linux kernel"},
		{0x206, 2, 0x20B, "2.11"},
		{0x201, 1, 0x61, "too old"}, /* the header ends before init_size */
		{0x211, 1, 0, "64-bit"},
		{0x236, 2, 0, "64-bit"},
		{0x1F1, 1, 255, "truncated"},
		{0x1F4, 4, PAYLOAD / 16 + 2, "truncated"},
		{0x1F4, 4, 0xFFFFFFFF, "truncated"},
		{0x230, 4, 0, "cannot be"},
		{0x230, 4, 0x300000, "cannot be"},
		{0x230, 4, 0x80000000, "cannot be"},
		{0x258, 8, UINT64_MAX, "cannot be"},
		{0x258, 8, UINT64_C(1) << 32, "cannot be"},
		{0x260, 4, 0, "cannot be"},
	};
	struct x86_linux_kernel k;
	uint8_t f[FILE_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err err = {0};

		good(f);
		put(f, bad[i].at, bad[i].v, bad[i].n);
		assert_int_equal(check(f, FILE_SIZE, &k, &err), -EINVAL);
		if (!strstr(err.msg, bad[i].says) || !strstr(err.msg, "vmlinuz")) {
			fail_msg("%#x: '%s' lacks '%s'", bad[i].at, err.msg, bad[i].says);
		}
	}
}

/* Every length and every single byte changed: an answer, never a crash; what passes is sane. */
static void test_header_sweep(void **state)
{
	struct x86_linux_kernel k;
	uint8_t f[FILE_SIZE];

	good(f);
	/* syssize counts in units of 16 bytes */
	for (unsigned size = 0; size <= SETUP_SIZE + PAYLOAD / 16 * 16; size++) {
		assert_int_equal(check(f, size, &k, NULL), -EINVAL);
	}
	for (unsigned at = 0x1F1; at < 0x270; at++) {
		for (unsigned v = 0; v < 256; v++) {
			good(f);
			f[at] = v;
			if (check(f, FILE_SIZE, &k, NULL) == 0) {
				assert_true(k.setup_size + k.payload_size == FILE_SIZE);
				assert_true(is_pow2(k.alignment));
				assert_true(k.pref_address < 4 * GiB);
			}
		}
	}
}

/* --- loading --- */

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

static void guest_init(struct guest *g, uint64_t low, int kernel)
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
		.kernel_name = "vmlinuz",
		.kernel_fd = kernel,
		.initrd_fd = -1,
		.cmdline = "console=ttyS0 quiet",
		.e820 = g->e820,
		.e820_count = 4,
		.rsdp = 0xE0000,
	};
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
	uint8_t f[FILE_SIZE], initrd[9000];
	struct x86_linux_entry e;
	struct guest g;
	char line[64];
	gpa_t bp, rd;

	good(f);
	memset(initrd, 0x5A, sizeof(initrd));
	guest_init(&g, 64 * MiB, file_of(f, FILE_SIZE));
	g.cfg.initrd_name = "initrd";
	g.cfg.initrd_fd = file_of(initrd, sizeof(initrd));
	assert_int_equal(x86_linux_load(g.mem, &g.cfg, &e, NULL), 0);

	assert_int_equal(e.entry, 16 * MiB + 0x200);
	expect_bytes(g.mem, 16 * MiB, f + SETUP_SIZE, PAYLOAD);
	bp = e.boot_params;
	expect_bytes(g.mem, bp + 0x1F1, f + 0x1F1, 0x210 - 0x1F1 - 24); /* up to vid_mode */
	assert_int_equal(peek(g.mem, bp + 0x202, 4), 0x53726448);
	assert_int_equal(peek(g.mem, bp + 0x210, 1), 0xFF);
	assert_int_equal(peek(g.mem, bp + 0x1EF, 1), 0); /* sentinel: the rest is clean */
	assert_int_equal(peek(g.mem, bp + 0x260, 4), 8 * MiB);
	assert_int_equal(peek(g.mem, bp + 0x070, 8), 0xE0000); /* acpi_rsdp_addr */
	/* the command line */
	assert_int_equal(mem_read(g.mem, peek(g.mem, bp + 0x228, 4), line, sizeof(line)), 0);
	assert_string_equal(line, "console=ttyS0 quiet");
	/* the initrd, as high as it goes, page aligned */
	rd = peek(g.mem, bp + 0x218, 4);
	assert_int_equal(peek(g.mem, bp + 0x21C, 4), sizeof(initrd));
	assert_int_equal(rd, 64 * MiB - 3 * 4096);
	expect_bytes(g.mem, rd, initrd, sizeof(initrd));
	/* e820, 20 bytes an entry */
	assert_int_equal(peek(g.mem, bp + 0x1E8, 1), 4);
	assert_int_equal(peek(g.mem, bp + 0x2D0 + 2 * 20, 8), 0xB0000000);
	assert_int_equal(peek(g.mem, bp + 0x2D0 + 2 * 20 + 8, 8), 256 * MiB);
	assert_int_equal(peek(g.mem, bp + 0x2D0 + 2 * 20 + 16, 4), 2);
	assert_int_equal(peek(g.mem, bp + 0x2D0 + 3 * 20, 8), 4 * GiB);
	/* tables: the first entry of the PML4 leads somewhere */
	assert_int_equal(peek(g.mem, e.tables + 0x1000, 8) & 3, 3);

	close(g.cfg.kernel_fd);
	close(g.cfg.initrd_fd);
	mem_free(g.mem);
}

static void test_placement(void **state)
{
	uint8_t f[FILE_SIZE], initrd[4096] = {1};
	struct x86_linux_entry e;
	struct err err = {0};
	struct guest g;

	/* 16 MiB is not RAM: a relocatable kernel goes to the lowest aligned place */
	good(f);
	guest_init(&g, 12 * MiB, file_of(f, FILE_SIZE));
	assert_int_equal(x86_linux_load(g.mem, &g.cfg, &e, NULL), 0);
	assert_int_equal(e.entry, 2 * MiB + 0x200);
	/* the initrd fits above 10 MiB, and its limit keeps it below 11 */
	put(f, 0x22C, 11 * MiB - 1, 4);
	assert_int_equal(pwrite(g.cfg.kernel_fd, f, FILE_SIZE, 0), FILE_SIZE);
	g.cfg.initrd_name = "initrd";
	g.cfg.initrd_fd = file_of(initrd, sizeof(initrd));
	assert_int_equal(x86_linux_load(g.mem, &g.cfg, &e, NULL), 0);
	assert_int_equal(peek(g.mem, e.boot_params + 0x218, 4), 11 * MiB - 4096);
	/* a lower limit leaves the megabyte below the kernel */
	put(f, 0x22C, 3 * MiB - 1, 4);
	assert_int_equal(pwrite(g.cfg.kernel_fd, f, FILE_SIZE, 0), FILE_SIZE);
	assert_int_equal(x86_linux_load(g.mem, &g.cfg, &e, NULL), 0);
	assert_int_equal(peek(g.mem, e.boot_params + 0x218, 4), 2 * MiB - 4096);
	/* and one below that nothing */
	put(f, 0x22C, MiB - 1, 4);
	assert_int_equal(pwrite(g.cfg.kernel_fd, f, FILE_SIZE, 0), FILE_SIZE);
	assert_int_equal(x86_linux_load(g.mem, &g.cfg, &e, &err), -ENOMEM);
	assert_non_null(strstr(err.msg, "-initrd initrd"));
	/* a kernel that must lie at 16 MiB cannot */
	good(f);
	put(f, 0x234, 0, 1);
	assert_int_equal(pwrite(g.cfg.kernel_fd, f, FILE_SIZE, 0), FILE_SIZE);
	assert_int_equal(x86_linux_load(g.mem, &g.cfg, &e, &err), -ENOMEM);
	assert_non_null(strstr(err.msg, "-m"));
	/* nor one that needs more than there is */
	good(f);
	put(f, 0x260, 0xFFFFFFFF, 4);
	assert_int_equal(pwrite(g.cfg.kernel_fd, f, FILE_SIZE, 0), FILE_SIZE);
	assert_int_equal(x86_linux_load(g.mem, &g.cfg, &e, &err), -ENOMEM);
	assert_non_null(strstr(err.msg, "4096 MiB"));
	close(g.cfg.kernel_fd);
	close(g.cfg.initrd_fd);
	mem_free(g.mem);
}

static void test_bad_files(void **state)
{
	uint8_t f[FILE_SIZE];
	struct x86_linux_entry e;
	struct err err = {0};
	char line[4096];
	struct guest g;
	int fds[2];

	good(f);
	guest_init(&g, 64 * MiB, file_of(f, FILE_SIZE));

	memset(line, 'x', sizeof(line));
	line[2048] = 0;
	g.cfg.cmdline = line;
	assert_int_equal(x86_linux_load(g.mem, &g.cfg, &e, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "-append"));
	line[2047] = 0;
	assert_int_equal(x86_linux_load(g.mem, &g.cfg, &e, &err), 0);
	g.cfg.cmdline = NULL;
	assert_int_equal(x86_linux_load(g.mem, &g.cfg, &e, &err), 0);
	assert_int_equal(peek(g.mem, peek(g.mem, e.boot_params + 0x228, 4), 1), 0);

	g.cfg.initrd_name = "initrd";
	g.cfg.initrd_fd = file_of("", 0);
	assert_int_equal(x86_linux_load(g.mem, &g.cfg, &e, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "-initrd initrd: empty"));
	close(g.cfg.initrd_fd);
	g.cfg.initrd_name = NULL;
	close(g.cfg.kernel_fd);

	assert_int_equal(pipe(fds), 0);
	g.cfg.kernel_fd = fds[0];
	assert_int_equal(x86_linux_load(g.mem, &g.cfg, &e, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "not a regular file"));
	close(fds[0]);
	close(fds[1]);

	g.cfg.kernel_fd = file_of(f, 100);
	assert_int_equal(x86_linux_load(g.mem, &g.cfg, &e, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "too short"));
	close(g.cfg.kernel_fd);

	/* e820 promises memory that is not there */
	g.cfg.kernel_fd = file_of(f, FILE_SIZE);
	put(f, 0x258, 512 * MiB, 8);
	assert_int_equal(pwrite(g.cfg.kernel_fd, f, FILE_SIZE, 0), FILE_SIZE);
	g.e820[1].size = GiB;
	assert_int_equal(x86_linux_load(g.mem, &g.cfg, &e, &err), -EFAULT);
	close(g.cfg.kernel_fd);
	mem_free(g.mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_header),  cmocka_unit_test(test_bad_headers),
		cmocka_unit_test(test_header_sweep), cmocka_unit_test(test_load),
		cmocka_unit_test(test_placement),    cmocka_unit_test(test_bad_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
