/* mem/mem.h: copies and spans over region borders and at 2^64, what may be written, listeners.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "mem/mem.h"

#define PAGE UINT64_C(4096)
#define TOP  (UINT64_MAX - 2 * PAGE + 1) /* two pages that end at 2^64 */

struct fixture {
	struct mem *m;
	struct mem_region *low, *next, *ro, *rom, *top;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_int_equal(mem_new(&f->m), 0);
	/* Adjacent: low, next, then a read-only one, then firmware; a hole; the top. Added out
	 * of order, because the table has to sort them. */
	assert_int_equal(
		mem_region_add(f->m, "next", 4 * PAGE, 2 * PAGE, MEM_RAM, 0, &f->next, NULL),
		0);
	assert_int_equal(mem_region_add(f->m, "top", TOP, 2 * PAGE, MEM_RAM, 0, &f->top, NULL),
			 0);
	assert_int_equal(mem_region_add(f->m, "low", 0, 4 * PAGE, MEM_RAM, 0, &f->low, NULL),
			 0);
	assert_int_equal(mem_region_add(f->m, "rom", 7 * PAGE, PAGE, MEM_FIRMWARE, MEM_READONLY,
					&f->rom, NULL),
			 0);
	assert_int_equal(
		mem_region_add(f->m, "ro", 6 * PAGE, PAGE, MEM_RAM, MEM_READONLY, &f->ro, NULL),
		0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	mem_free(f->m);
	free(f);
	return 0;
}

static void test_copy_across(void **state)
{
	struct fixture *f = *state;
	uint8_t out[3 * PAGE], in[3 * PAGE];

	for (size_t i = 0; i < sizeof(out); i++) {
		out[i] = (uint8_t)(i * 7 + i / 251);
	}
	assert_int_equal(mem_write(f->m, 2 * PAGE + 5, out, sizeof(out)), 0);
	assert_int_equal(mem_read(f->m, 2 * PAGE + 5, in, sizeof(in)), 0);
	assert_memory_equal(in, out, sizeof(out));
	assert_memory_equal((uint8_t *)mem_region_host(f->low) + 2 * PAGE + 5, out,
			    2 * PAGE - 5);
	assert_memory_equal(mem_region_host(f->next), out + 2 * PAGE - 5, PAGE + 5);
	assert_int_equal(mem_read(f->m, 12345, in, 0), 0);
	assert_int_equal(mem_write(f->m, UINT64_MAX, in, 0), 0);
}

static void test_copy_refused(void **state)
{
	struct fixture *f = *state;
	uint8_t before[2 * PAGE], buf[4 * PAGE];

	memset(mem_region_host(f->next), 0x5a, 2 * PAGE);
	memcpy(before, mem_region_host(f->next), sizeof(before));
	memset(buf, 0x11, sizeof(buf));

	/* Runs into the read-only region: not a byte of it is done. */
	assert_int_equal(mem_write(f->m, 5 * PAGE, buf, PAGE + 1), -EFAULT);
	assert_int_equal(mem_write(f->m, 6 * PAGE, buf, 1), -EFAULT);
	assert_int_equal(mem_write(f->m, 7 * PAGE, buf, 1), -EFAULT);
	assert_memory_equal(mem_region_host(f->next), before, sizeof(before));
	/* The hole, from inside and from before. */
	assert_int_equal(mem_read(f->m, 8 * PAGE, buf, 1), -EFAULT);
	assert_int_equal(mem_read(f->m, 8 * PAGE - 1, buf, 2), -EFAULT);
	assert_int_equal(buf[0], 0x11);
	/* Reading goes on through read-only memory and firmware. */
	memset(mem_region_host(f->ro), 0x77, PAGE);
	memset(mem_region_host(f->rom), 0x88, PAGE);
	assert_int_equal(mem_read(f->m, 6 * PAGE, buf, 2 * PAGE), 0);
	assert_int_equal(buf[PAGE - 1], 0x77);
	assert_int_equal(buf[PAGE], 0x88);
}

static void test_end_of_address_space(void **state)
{
	struct fixture *f = *state;
	uint8_t buf[2 * PAGE];
	struct iovec iov[4];

	memset(buf, 0x42, sizeof(buf));
	assert_int_equal(mem_write(f->m, TOP, buf, 2 * PAGE), 0);
	assert_int_equal(mem_read(f->m, UINT64_MAX, buf, 1), 0);
	assert_int_equal(buf[0], 0x42);
	/* One more byte would be address 0, which is RAM too: still refused. */
	assert_int_equal(mem_read(f->m, UINT64_MAX, buf, 2), -EFAULT);
	assert_int_equal(mem_write(f->m, TOP + 1, buf, 2 * PAGE), -EFAULT);
	assert_int_equal(mem_span(f->m, UINT64_MAX, 2, false, iov, 4), -EFAULT);
	assert_int_equal(mem_span(f->m, TOP, 2 * PAGE, true, iov, 4), 1);
	assert_int_equal(iov[0].iov_len, 2 * PAGE);
	assert_int_equal(mem_span(f->m, 0, UINT64_MAX, false, iov, 4), -EFAULT);
	assert_int_equal(mem_span(f->m, 1, UINT64_MAX, false, iov, 4), -EFAULT);
	assert_null(mem_ptr(f->m, UINT64_MAX, 2, false));
	assert_non_null(mem_ptr(f->m, UINT64_MAX, 1, true));
}

static void test_span(void **state)
{
	struct fixture *f = *state;
	uint8_t *low = mem_region_host(f->low), *next = mem_region_host(f->next);
	struct iovec iov[3];

	assert_int_equal(mem_span(f->m, 0, 0, true, iov, 0), 0);
	assert_int_equal(mem_span(f->m, PAGE, PAGE, true, iov, 3), 1);
	assert_ptr_equal(iov[0].iov_base, low + PAGE);
	assert_int_equal(iov[0].iov_len, PAGE);
	assert_int_equal(mem_span(f->m, 4 * PAGE - 1, 2, true, iov, 2), 2);
	assert_ptr_equal(iov[0].iov_base, low + 4 * PAGE - 1);
	assert_int_equal(iov[0].iov_len, 1);
	assert_ptr_equal(iov[1].iov_base, next);
	assert_int_equal(iov[1].iov_len, 1);
	assert_int_equal(mem_span(f->m, 4 * PAGE - 1, 2, true, iov, 1), -E2BIG);
	/* Too short a vector does not hide that the address is bad. */
	assert_int_equal(mem_span(f->m, 4 * PAGE - 1, 5 * PAGE, true, iov, 1), -EFAULT);
	/* Three regions, readable; not writable. */
	assert_int_equal(mem_span(f->m, 3 * PAGE, 4 * PAGE, false, iov, 3), 3);
	assert_int_equal(mem_span(f->m, 3 * PAGE, 4 * PAGE, true, iov, 3), -EFAULT);
	/* Firmware is no DMA target in either direction. */
	assert_int_equal(mem_span(f->m, 7 * PAGE, 1, false, iov, 3), -EFAULT);
	assert_int_equal(mem_span(f->m, 7 * PAGE, 1, true, iov, 3), -EFAULT);
	assert_int_equal(mem_span(f->m, 6 * PAGE, PAGE + 1, false, iov, 3), -EFAULT);

	assert_ptr_equal(mem_ptr(f->m, 10, 20, true), low + 10);
	assert_null(mem_ptr(f->m, 4 * PAGE - 1, 2, false)); /* two pieces */
	assert_null(mem_ptr(f->m, 0, 0, false));
	assert_null(mem_ptr(f->m, 6 * PAGE, 1, true));
	assert_non_null(mem_ptr(f->m, 6 * PAGE, 1, false));
	assert_null(mem_ptr(f->m, 7 * PAGE, 1, false));
}

static void test_add_refused(void **state)
{
	struct fixture *f = *state;
	struct mem_region *r = NULL;
	struct err err = {0};

	assert_int_equal(mem_region_add(f->m, "x", 3 * PAGE, 2 * PAGE, MEM_RAM, 0, &r, &err),
			 -EEXIST);
	assert_non_null(strstr(err.msg, "'x'"));
	assert_non_null(strstr(err.msg, "'low'"));
	assert_int_equal(mem_region_add(f->m, "x", 4 * PAGE, PAGE, MEM_RAM, 0, &r, &err),
			 -EEXIST);
	assert_int_equal(mem_region_add(f->m, "x", 0, 100 * PAGE, MEM_RAM, 0, &r, &err),
			 -EEXIST);
	assert_int_equal(mem_region_add(f->m, "x", 9 * PAGE, 0, MEM_RAM, 0, &r, &err), -EINVAL);
	assert_int_equal(mem_region_add(f->m, "x", 9 * PAGE + 1, PAGE, MEM_RAM, 0, &r, &err),
			 -EINVAL);
	assert_int_equal(mem_region_add(f->m, "x", 9 * PAGE, PAGE + 1, MEM_RAM, 0, &r, &err),
			 -EINVAL);
	assert_int_equal(mem_region_add(f->m, "x", TOP, 3 * PAGE, MEM_RAM, 0, &r, &err),
			 -EINVAL);
	assert_int_equal(
		mem_region_add(f->m, "big", 8 * GiB, UINT64_C(1) << 60, MEM_RAM, 0, &r, &err),
		-ENOMEM);
	assert_non_null(strstr(err.msg, "1073741824 GiB"));
	assert_null(r);

	/* As many as there is room for, and not one more. */
	for (unsigned i = 5; i < MEM_MAX_REGIONS; i++) {
		assert_int_equal(mem_region_add(f->m, "n", (100 + 2 * i) * PAGE, PAGE, MEM_RAM,
						0, &r, NULL),
				 0);
	}
	assert_int_equal(mem_region_add(f->m, "n", 10 * PAGE, PAGE, MEM_RAM, 0, &r, &err),
			 -ENOSPC);
	assert_int_equal(mem_read(f->m, (100 + 2 * 63) * PAGE, &(char){0}, 1), 0);
}

static void test_host_memory_and_huge_alignment(void **state)
{
	struct fixture *f = *state;
	struct mem_region *r, *big;
	uint8_t *host =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t b = 9;

	assert_int_equal(
		mem_region_add_host(f->m, "mine", 16 * PAGE, PAGE, host, MEM_RAM, 0, &r, NULL),
		0);
	assert_int_equal(mem_write(f->m, 16 * PAGE + 3, &b, 1), 0);
	assert_int_equal(host[3], 9);
	assert_ptr_equal(mem_region_host(r), host);
	mem_region_del(f->m, r);
	assert_int_equal(mem_write(f->m, 16 * PAGE + 3, &b, 1), -EFAULT);
	host[3] = 1; /* still the caller's */
	munmap(host, PAGE);

	assert_int_equal(mem_region_add(f->m, "big", 4 * GiB + 3 * PAGE, 8 * MiB, MEM_RAM, 0,
					&big, NULL),
			 0);
	assert_int_equal((uintptr_t)mem_region_host(big) % (2 * MiB), 3 * PAGE);
	assert_string_equal(mem_region_name(big), "big");
	assert_int_equal(mem_region_gpa(big), 4 * GiB + 3 * PAGE);
	assert_int_equal(mem_region_size(big), 8 * MiB);
	memset(mem_region_host(big), 1, 8 * MiB); /* all of it is there */
}

static int collect(struct mem_region *r, void *arg)
{
	*(*(const char ***)arg)++ = mem_region_name(r);
	return strcmp(mem_region_name(r), "ro") == 0 ? 7 : 0;
}

static void test_for_each(void **state)
{
	struct fixture *f = *state;
	const char *names[8] = {0}, **p = names;

	assert_int_equal(mem_for_each(f->m, collect, &p), 7);
	assert_int_equal(p - names, 3);
	assert_string_equal(names[0], "low");
	assert_string_equal(names[1], "next");
	assert_string_equal(names[2], "ro");
}

/* --- listeners --- */

struct recorder {
	struct mem_listener l;
	struct mem_region *seen[16];
	unsigned n;
	unsigned fail_at; /* the n-th add from now fails; 0: none */
	unsigned adds, dels;
};

static int rec_add(struct mem_listener *l, struct mem_region *r, struct err *err)
{
	struct recorder *rec = container_of(l, struct recorder, l);

	if (rec->fail_at && --rec->fail_at == 0) {
		return err_set(err, ENXIO, "no room for %s", mem_region_name(r));
	}
	for (unsigned i = 0; i < rec->n; i++) {
		assert_ptr_not_equal(rec->seen[i], r);
	}
	rec->seen[rec->n++] = r;
	rec->adds++;
	return 0;
}

static void rec_del(struct mem_listener *l, struct mem_region *r)
{
	struct recorder *rec = container_of(l, struct recorder, l);
	unsigned i = 0;

	while (i < rec->n && rec->seen[i] != r) {
		i++;
	}
	assert_true(i < rec->n);
	rec->seen[i] = rec->seen[--rec->n];
	rec->dels++;
}

static const struct mem_listener_ops rec_all = {
	.name = "all", .firmware = true, .region_add = rec_add, .region_del = rec_del};
static const struct mem_listener_ops rec_ram = {
	.name = "ram", .region_add = rec_add, .region_del = rec_del};

static void test_listeners(void **state)
{
	struct fixture *f = *state;
	struct recorder all = {.l.ops = &rec_all}, ram = {.l.ops = &rec_ram};
	struct mem_region *r = NULL;
	struct err err = {0};

	/* A listener that cannot take the third is told to forget the first two. */
	all.fail_at = 3;
	assert_int_equal(mem_listener_add(f->m, &all.l, &err), -ENXIO);
	assert_string_equal(err.msg, "no room for ro");
	assert_int_equal(all.n, 0);
	assert_int_equal(all.dels, 2);

	assert_int_equal(mem_listener_add(f->m, &all.l, NULL), 0);
	assert_int_equal(all.n, 5);
	assert_int_equal(mem_listener_add(f->m, &ram.l, NULL), 0);
	assert_int_equal(ram.n, 4); /* never the firmware */

	assert_int_equal(mem_region_add(f->m, "new", 32 * PAGE, PAGE, MEM_RAM, 0, &r, NULL), 0);
	assert_int_equal(all.n, 6);
	assert_int_equal(ram.n, 5);
	mem_region_del(f->m, r);
	assert_int_equal(all.n, 5);
	assert_int_equal(ram.n, 4);

	/* The second refuses: the first forgets, and the region is not there. */
	ram.fail_at = 1;
	assert_int_equal(mem_region_add(f->m, "new", 32 * PAGE, PAGE, MEM_RAM, 0, &r, &err),
			 -ENXIO);
	assert_int_equal(all.n, 5);
	assert_int_equal(mem_read(f->m, 32 * PAGE, &(char){0}, 1), -EFAULT);
	assert_int_equal(mem_region_add(f->m, "fw", 32 * PAGE, PAGE, MEM_FIRMWARE, 0, &r, &err),
			 0);
	assert_int_equal(all.n, 6);
	assert_int_equal(ram.n, 4);

	/* A ROM device leaves and comes back; its contents stay readable. */
	assert_int_equal(mem_region_set_direct(f->m, r, false), 0);
	assert_int_equal(all.n, 5);
	assert_int_equal(mem_region_set_direct(f->m, r, false), 0);
	assert_int_equal(all.n, 5);
	assert_int_equal(mem_read(f->m, 32 * PAGE, &(char){0}, 1), 0);
	all.fail_at = 1;
	assert_int_equal(mem_region_set_direct(f->m, r, true), -ENXIO);
	assert_int_equal(mem_region_set_direct(f->m, r, true), 0);
	assert_int_equal(all.n, 6);
	/* Gone while not direct: the listener does not hear of it again. */
	assert_int_equal(mem_region_set_direct(f->m, r, false), 0);
	mem_region_del(f->m, r);
	assert_int_equal(all.n, 5);

	mem_listener_del(f->m, &ram.l);
	assert_int_equal(ram.n, 0);
	mem_listener_del(f->m, &all.l);
	assert_int_equal(all.n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_copy_across, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_end_of_address_space, setup, teardown),
		cmocka_unit_test_setup_teardown(test_span, setup, teardown),
		cmocka_unit_test_setup_teardown(test_add_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_host_memory_and_huge_alignment, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_for_each, setup, teardown),
		cmocka_unit_test_setup_teardown(test_listeners, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
