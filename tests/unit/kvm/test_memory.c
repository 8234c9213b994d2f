/* Slots, read-only firmware, the dirty log and doorbells, seen from a real guest. */
#include "guest.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/util.h"

#define ROM  0xC0000
#define BELL 0xB0000

GUEST_CODE_OF(dirty);
GUEST_CODE_OF(rom);
GUEST_CODE_OF(bell);
__asm__(".pushsection .rodata\n"
	".code64\n"
	/* writes into pages 0x30, 0x33 and 0x4F, reads 0x40; then, again, 0x31 */
	"dirty_start:\n"
	"	movb $1, 0x30000\n"
	"	movl $2, 0x33FFC\n"
	"	movb $3, 0x4F123\n"
	"	mov 0x40000, %al\n"
	"	out %al, $0xF4\n"
	"	movb $4, 0x31000\n"
	"	out %al, $0xF4\n"
	"	mov 0x32000, %al\n"
	"	out %al, $0xF4\n"
	"1:	hlt\n"
	"	jmp 1b\n"
	"dirty_end:\n"
	/* reads, writes and reads firmware */
	"rom_start:\n"
	"	mov 0xC0010, %al\n"
	"	out %al, $0x10\n"
	"	movb $0x77, 0xC0010\n"
	"	mov 0xC0010, %al\n"
	"	out %al, $0x10\n"
	"	out %al, $0xF4\n"
	"	mov 0xC0010, %al\n"
	"	out %al, $0x10\n"
	"	out %al, $0xF4\n"
	"1:	hlt\n"
	"	jmp 1b\n"
	"rom_end:\n"
	/* rings with every width, and beside it */
	"bell_start:\n"
	"	movb $1, 0xB0000\n"
	"	movw $2, 0xB0000\n"
	"	movl $3, 0xB0000\n"
	"	movl $4, 0xB0004\n"
	"	movw $5, 0xB0008\n"
	"	movl $6, 0xB0008\n"
	"	out %al, $0xF4\n"
	"	movl $7, 0xB0000\n"
	"	out %al, $0xF4\n"
	"1:	hlt\n"
	"	jmp 1b\n"
	"bell_end:\n"
	".popsection\n");

static bool bit(const uint64_t *map, unsigned n)
{
	return map[n / 64] >> (n % 64) & 1;
}

static void sync_log(struct guest *g, uint64_t *map)
{
	assert_int_equal(mem_region_pages(g->ram), GUEST_RAM / 4096);
	assert_int_equal(mem_log_sync(g->mem, g->ram, map, (GUEST_RAM / 4096 + 63) / 64), 0);
}

/* These pages are in the log. What the guest only read or ran may be, too, since KVM maps a
 * page that was touched for writing if it can; the processor itself writes to page tables. */
static void expect_dirty(struct guest *g, const unsigned *pages, unsigned n)
{
	uint64_t map[4];

	sync_log(g, map);
	for (unsigned i = 8; i < GUEST_RAM / 4096; i++) {
		bool want = false;

		for (unsigned k = 0; k < n; k++) {
			want = want || pages[k] == i;
		}
		if (want || (i != 0x10 && i != 0x40 && i != 0x32)) {
			assert_int_equal(bit(map, i), want);
		}
	}
}

static void test_dirty_log(void **state)
{
	struct guest g = {0};
	uint64_t map[4];

	guest_need_kvm();
	guest_new(&g, 1);
	guest_load(&g, dirty_start, dirty_end);
	guest_reset_long(&g);
	assert_int_equal(mem_log_start(g.mem), 0);
	sync_log(&g, map); /* what was written before may or may not be in it */
	guest_run(&g);
	guest_pause(&g);
	expect_dirty(&g, (const unsigned[]){0x30, 0x33, 0x4F}, 3);
	/* each page once, and again when written again */
	guest_run(&g);
	guest_pause(&g);
	expect_dirty(&g, (const unsigned[]){0x31}, 1);
	assert_int_equal(mem_write(g.mem, 0x50000, "x", 1), 0); /* a device */
	guest_run(&g);
	guest_pause(&g);
	expect_dirty(&g, (const unsigned[]){0x50}, 1);
	mem_log_stop(g.mem);
	/* the log may be taken up again, and a region may come while it is on */
	assert_int_equal(mem_log_start(g.mem), 0);
	mem_log_stop(g.mem);
	guest_free(&g);
}

static _Atomic unsigned rom_writes, rom_reads;

static uint64_t rom_read(void *opaque, uint64_t off, unsigned size)
{
	atomic_fetch_add(&rom_reads, 1);
	return 0x99;
}

static void rom_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	assert_int_equal(off, 0x10);
	assert_int_equal(value, 0x77);
	atomic_fetch_add(&rom_writes, 1);
}

static const struct bus_ops rom_ops = {.read = rom_read, .write = rom_write};

static void test_firmware(void **state)
{
	struct bus_region device = {
		.name = "flash",
		.space = BUS_MMIO,
		.base = ROM,
		.size = 0x10000,
		.ops = &rom_ops,
	};
	struct guest g = {0};
	struct mem_region *r;
	uint8_t *host;

	guest_need_kvm();
	guest_new(&g, 1);
	assert_int_equal(mem_region_add(g.mem, "flash", ROM, 0x10000, MEM_FIRMWARE,
					MEM_READONLY, &r, NULL),
			 0);
	assert_int_equal(bus_add(g.bus, &device), 0);
	host = mem_region_host(r);
	host[0x10] = 0x42;
	guest_load(&g, rom_start, rom_end);
	guest_reset_long(&g);
	guest_run(&g);
	/* reads are the memory's, the write was the device's */
	assert_int_equal(g.said[0], 0x42);
	assert_int_equal(g.said[1], 0x42);
	assert_int_equal(host[0x10], 0x42);
	assert_int_equal(atomic_load(&rom_writes), 1);
	assert_int_equal(atomic_load(&rom_reads), 0);
	/* not direct: the device is asked, too */
	guest_pause(&g);
	assert_int_equal(mem_region_set_direct(g.mem, r, false), 0);
	guest_run(&g);
	assert_int_equal(g.said[2], 0x99);
	assert_int_equal(atomic_load(&rom_reads), 1);
	guest_pause(&g);
	assert_int_equal(mem_region_set_direct(g.mem, r, true), 0);
	bus_del(g.bus, &device);
	guest_free(&g);
}

static _Atomic unsigned bell_writes;
static uint32_t bell_values[16];

static void bell_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	bell_values[atomic_fetch_add(&bell_writes, 1) % 16] = (uint32_t)value;
}

static const struct bus_ops bell_ops = {.write = bell_write};

static void test_doorbells(void **state)
{
	struct bus_region device = {
		.name = "notify",
		.space = BUS_MMIO,
		.base = BELL,
		.size = 0x1000,
		.ops = &bell_ops,
	};
	struct guest g = {0};
	struct doorbells *d;
	uint64_t n;
	int any, two;

	guest_need_kvm();
	guest_new(&g, 1);
	d = kvm_vm_doorbells(g.vm);
	assert_int_equal(bus_add(g.bus, &device), 0);
	any = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	two = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_int_equal(d->ops->add(d, BELL, 0, any), 0);
	assert_int_equal(d->ops->add(d, BELL, 0, any), -EEXIST);
	assert_int_equal(d->ops->add(d, BELL + 8, 2, two), 0);
	assert_int_equal(d->ops->add(d, BELL + 16, 3, two), -EINVAL);
	guest_load(&g, bell_start, bell_end);
	guest_reset_long(&g);
	guest_run(&g);
	assert_int_equal(eventfd_read(any, &n), 0);
	assert_int_equal(n, 3);
	assert_int_equal(eventfd_read(two, &n), 0);
	assert_int_equal(n, 1);
	/* what is no doorbell reached the device */
	assert_int_equal(atomic_load(&bell_writes), 2);
	assert_int_equal(bell_values[0], 4);
	assert_int_equal(bell_values[1], 6);
	/* and so does what was one */
	d->ops->del(d, BELL, 0, any);
	guest_run(&g);
	assert_int_equal(eventfd_read(any, &n), -1);
	assert_int_equal(atomic_load(&bell_writes), 3);
	assert_int_equal(bell_values[2], 7);
	d->ops->del(d, BELL + 8, 2, two);
	d->ops->del(d, BELL + 8, 2, two); /* harmless */
	guest_pause(&g);
	bus_del(g.bus, &device);
	close(any);
	close(two);
	guest_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dirty_log),
		cmocka_unit_test(test_firmware),
		cmocka_unit_test(test_doorbells),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
