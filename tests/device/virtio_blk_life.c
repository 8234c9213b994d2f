/*
 * virtio-blk stopped in mid-I/O: resets, pause, state; and with a real file, an iothread and a
 * vCPU that never waits for anybody. Counts what is allocated for a request: nothing.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "blk_rig.h"

#define SLOTS 16

/* --- counting allocations; a sanitizer has taken malloc over and tells of each call --- */

#ifndef __has_feature
#define __has_feature(x) 0 /* gcc */
#endif
static _Atomic unsigned long allocations;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) ||                           \
	__has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
					      void (*on_free)(const volatile void *));
static void counted_malloc(const volatile void *p, size_t n)
{
	(void)p;
	(void)n;
	allocations++;
}
static void counted_free(const volatile void *p)
{
	(void)p;
}
static void count_allocations(void)
{
	assert_int_not_equal(
		__sanitizer_install_malloc_and_free_hooks(counted_malloc, counted_free), 0);
}
#else
static void count_allocations(void)
{
}
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t m);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t a, size_t n);
void *malloc(size_t n)
{
	allocations++;
	return __libc_malloc(n);
}
void *calloc(size_t n, size_t m)
{
	allocations++;
	return __libc_calloc(n, m);
}
void *realloc(void *p, size_t n)
{
	allocations++;
	return __libc_realloc(p, n);
}
void *aligned_alloc(size_t a, size_t n)
{
	allocations++;
	return __libc_memalign(a, n);
}
#endif

static uint8_t status_of(struct blk_rig *b, unsigned slot)
{
	return *(uint8_t *)vdrv_ptr(&b->r.d, b->status + slot, 1);
}

/* Puts n writes in flight and keeps them there. */
static void hold_writes(struct blk_rig *b, unsigned n)
{
	blk_rig_hold(b, true);
	for (unsigned i = 0; i < n; i++) {
		memset(vdrv_ptr(&b->r.d, b->data + i * (uint64_t)BLK_RIG_DATA, 512), (int)i + 1,
		       512);
		assert_true(blk_rig_add(b, i, VIRTIO_BLK_T_OUT, i, 512) >= 0);
	}
	vdrv_kick(&b->r.d.q[0]);
	while (blk_fault_held(b->fault) < n) {
		vdrv_settle(&b->r.d);
	}
}

static void test_device_reset_in_mid_io(void **state)
{
	struct blk_rig b;
	struct vdrv *d = &b.r.d;

	blk_rig_init(&b, NULL);
	vdrv_start(d, UINT64_MAX, 0);
	hold_writes(&b, 5);
	vdrv_status_set(d, 0);
	fake_vm_settle(b.r.fv);
	assert_int_not_equal(vdrv_status(d), 0);
	blk_rig_hold(&b, false);
	assert_true(vdrv_reset(d));
	/* they have happened */
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(b.disk[512 * i], i + 1);
		assert_int_equal(status_of(&b, i), VIRTIO_BLK_S_OK);
	}
	vdrv_start(d, UINT64_MAX, 0);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	blk_rig_fini(&b);
	(void)state;
}

static void test_queue_reset_in_mid_io(void **state)
{
	struct blk_rig b;
	struct vdrv *d = &b.r.d;

	blk_rig_init(&b, NULL);
	vdrv_start(d, UINT64_MAX, 0);
	hold_writes(&b, 5);
	VDRV_COMMON_SET(d, queue_select, 0);
	VDRV_COMMON_SET(d, queue_reset, 1);
	fake_vm_settle(b.r.fv);
	assert_int_equal(VDRV_COMMON(d, queue_reset), 1);
	blk_rig_hold(&b, false);
	assert_true(vdrv_queue_reset(d, 0));
	assert_int_equal(vdrv_status(d), 0xf);
	vdrv_queue_setup(d, 0, 32);
	vdrv_queue_enable(d, 0);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	blk_rig_fini(&b);
	(void)state;
}

/* A driver that resets and goes on at once, as firmware does, when nothing is in flight. */
static void test_reset_without_wait(void **state)
{
	struct blk_rig b;
	struct vdrv *d = &b.r.d;

	blk_rig_init_io(&b, NULL, true, NULL);
	for (int i = 0; i < 20; i++) {
		vdrv_status_set(d, 0);
		assert_true(vdrv_negotiate(d, F(VIRTIO_BLK_F_FLUSH)));
		vdrv_queue_setup(d, 0, 0);
		vdrv_queue_enable(d, 0);
		vdrv_status_set(d, 0xf);
		assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_OUT, 1, 512), VIRTIO_BLK_S_OK);
		assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	}
	blk_rig_fini(&b);
	(void)state;
}

static void test_transfer(void **state)
{
	struct blk_rig a, b;
	struct err err = {.msg = ""};
	uint16_t head;
	uint32_t len;

	blk_rig_init(&a, NULL);
	blk_rig_init(&b, NULL);
	vdrv_start(&a.r.d, UINT64_MAX, 0);
	assert_int_equal(blk_rig_do(&a, VIRTIO_BLK_T_OUT, 9, 512), VIRTIO_BLK_S_OK);
	vdrv_config_set(&a.r.d, offsetof(struct virtio_blk_config_layout, writeback), 1, 0);
	hold_writes(&a, 3);
	blk_rig_hold(&a, false);
	fake_vm_pause(a.r.fv);
	/* one that the source did not take any more */
	blk_rig_add(&a, 7, VIRTIO_BLK_T_IN, 2, 512);
	vdrv_kick(&a.r.d.q[0]);
	fake_vm_pause(b.r.fv);
	memcpy(mem_region_host(b.r.fv->ram), mem_region_host(a.r.fv->ram),
	       mem_region_size(a.r.fv->ram));
	memcpy(b.disk, a.disk, BLK_RIG_SIZE);
	assert_int_equal(fake_vm_transfer(a.r.fv, b.r.fv, &err), 0);
	vdrv_adopt(&b.r.d, &a.r.d, b.r.fv, &b.r.root);
	b.hdr = a.hdr;
	b.status = a.status;
	b.data = a.data;
	blk_rig_fini(&a);
	device_list_resume(&b.r.fv->devices);
	for (int i = 0; i < 4; i++) {
		assert_true(vdrv_wait(&b.r.d.q[0], &head, &len));
	}
	assert_int_equal(status_of(&b, 7), VIRTIO_BLK_S_OK);
	assert_int_equal(*(uint8_t *)vdrv_ptr(&b.r.d, b.data + 7ull * BLK_RIG_DATA, 1), 3);
	assert_int_equal(CONFIG(&b.r.d, writeback), 0);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_OUT, 9, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(b.spy.flags, BLK_FUA);
	blk_rig_fini(&b);
	(void)state;
}

static void test_transfer_to_another_disk(void **state)
{
	struct blk_rig a, b;
	struct blk_node *n;
	struct err err = {.msg = ""};

	blk_rig_init(&a, NULL);
	assert_int_equal(blk_null_new("other", 512, false, &n), 0);
	blk_rig_init_io(&b, NULL, false, n);
	fake_vm_pause(a.r.fv);
	fake_vm_pause(b.r.fv);
	assert_int_equal(fake_vm_transfer(a.r.fv, b.r.fv, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "disk0"));
	blk_rig_fini(&a);
	blk_rig_fini(&b);
	(void)state;
}

/* --- a file, an iothread, a vCPU --- */

struct vcpu {
	struct blk_rig *b;
	struct fake_cpu cpu;
	pthread_t thread;
	_Atomic bool done, failed;
	uint8_t *model;
	unsigned rounds;
};

static void fill(uint8_t *p, unsigned round, unsigned slot, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++) {
		p[i] = (uint8_t)(round * 31 + slot * 7 + i / 3);
	}
}

/* Each slot has a part of the disk of its own: writes, reads back, erases, flushes. */
static bool round_run(struct vcpu *v, unsigned round)
{
	struct blk_rig *b = v->b;
	struct vdrv *d = &b->r.d;
	const uint32_t part = BLK_RIG_SIZE / SLOTS;
	uint32_t type[SLOTS], size[SLOTS], off[SLOTS];
	uint16_t head;
	uint32_t len;

	for (unsigned i = 0; i < SLOTS; i++) {
		uint8_t *p = vdrv_ptr(d, b->data + i * (uint64_t)BLK_RIG_DATA, BLK_RIG_DATA);

		type[i] = (round + i) % 4 == 0	 ? VIRTIO_BLK_T_FLUSH
			  : (round + i) % 2 == 0 ? VIRTIO_BLK_T_IN
						 : VIRTIO_BLK_T_OUT;
		size[i] = type[i] == VIRTIO_BLK_T_FLUSH ? 0 : 512 * (1 + (round * 5 + i) % 64);
		off[i] = i * part + 512 * (round % 32);
		if (type[i] == VIRTIO_BLK_T_OUT) {
			fill(p, round, i, size[i]);
			memcpy(v->model + off[i], p, size[i]);
		}
		if (blk_rig_add_indirect(b, i, type[i], off[i] / 512, size[i]) < 0) {
			return false;
		}
	}
	vdrv_kick(&d->q[0]);
	for (unsigned i = 0; i < SLOTS; i++) {
		uint64_t since = now_ns();

		while (!vdrv_used(&d->q[0], &head, &len)) {
			vdrv_settle(d);
			/* a kick at the moment of a BAR move goes nowhere */
			vdrv_kick_always(&d->q[0]);
			if (now_ns() - since > UINT64_C(20000000000)) {
				return false;
			}
		}
	}
	for (unsigned i = 0; i < SLOTS; i++) {
		uint8_t *p = vdrv_ptr(d, b->data + i * (uint64_t)BLK_RIG_DATA, BLK_RIG_DATA);

		if (status_of(b, i) != VIRTIO_BLK_S_OK) {
			return false;
		}
		if (type[i] == VIRTIO_BLK_T_IN && memcmp(p, v->model + off[i], size[i])) {
			return false;
		}
	}
	return true;
}

static void *vcpu_main(void *arg)
{
	struct vcpu *v = arg;
	bool ok = true;

	for (unsigned i = 0; i < v->rounds && ok; i++) {
		ok = round_run(v, i);
	}
	atomic_store(&v->failed, !ok);
	atomic_store(&v->done, true);
	return NULL;
}

static void vcpu_start(struct vcpu *v, struct blk_rig *b, unsigned rounds)
{
	v->b = b;
	v->rounds = rounds;
	v->model = calloc(1, BLK_RIG_SIZE);
	atomic_init(&v->done, false);
	atomic_init(&v->failed, false);
	fake_cpu_init(&v->cpu, b->r.fv);
	b->r.d.cpu = &v->cpu;
	assert_int_equal(pthread_create(&v->thread, NULL, vcpu_main, v), 0);
}

static void vcpu_join(struct vcpu *v)
{
	while (!atomic_load(&v->done)) {
		loop_step(v->b->r.fv->vm.loop, 1);
	}
	pthread_join(v->thread, NULL);
	v->b->r.d.cpu = NULL;
	fake_cpu_fini(&v->cpu);
	assert_false(atomic_load(&v->failed));
}

static struct blk_node *file_node(char path[40])
{
	struct err err = {.msg = ""};
	struct blk_node *n;
	struct opts o;
	int fd;

	strcpy(path, "/tmp/nemu-vblk-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, BLK_RIG_SIZE), 0);
	close(fd);
	assert_int_equal(opts_parse(&o, "-blockdev", "driver=file,discard=unmap", NULL, &err), 0);
	assert_int_equal(opts_add(&o, "filename", path, &err), 0);
	assert_int_equal(blk_open(NULL, &o, &n, &err), 0);
	opts_fini(&o);
	return n;
}

static void allocations_count(struct blk_node *node)
{
	struct blk_rig b;
	struct vdrv *d = &b.r.d;
	unsigned long before;
	uint16_t head;
	uint32_t len;
	int n;

	blk_rig_init_io(&b, NULL, false, node);
	vdrv_start(d, UINT64_MAX, 0);
	for (int round = 0; round < 3; round++) {
		before = atomic_load(&allocations);
		for (int i = 0; i < 500; i++) {
			for (n = 0; n < SLOTS; n++) {
				uint32_t type = n % 2 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;

				blk_rig_add(&b, (unsigned)n, type, (uint64_t)n, 4096);
			}
			blk_rig_add(&b, SLOTS, VIRTIO_BLK_T_FLUSH, 0, 0);
			vdrv_kick(&d->q[0]);
			for (n = 0; n <= SLOTS; n++) {
				assert_true(vdrv_wait(&d->q[0], &head, &len));
			}
		}
	}
	/* The fault node makes its requests when they are first needed: the last round counts.
	 */
	assert_int_equal(atomic_load(&allocations), before);
	blk_rig_fini(&b);
}

static void test_no_allocation(void **state)
{
	char path[40];

	unsigned long before;
	void *volatile p; /* or the compiler leaves the pair out */

	count_allocations();
	before = atomic_load(&allocations);
	p = malloc(1);
	free(p);
	assert_int_not_equal(atomic_load(&allocations), before); /* it does count */
	allocations_count(NULL);
	allocations_count(file_node(path));
	unlink(path);
	(void)state;
}

static void file_compare(const char *path, const uint8_t *model)
{
	uint8_t *have = malloc(BLK_RIG_SIZE);
	FILE *f = fopen(path, "r");

	assert_non_null(f);
	assert_int_equal(fread(have, 1, BLK_RIG_SIZE, f), BLK_RIG_SIZE);
	assert_memory_equal(have, model, BLK_RIG_SIZE);
	fclose(f);
	free(have);
}

static void bar_place(struct vdrv *d, uint64_t bar)
{
	pci_cfg_write(d->root, 0, d->devfn, 0x20, 4, (uint32_t)bar);
	pci_cfg_write(d->root, 0, d->devfn, 0x24, 4, (uint32_t)(bar >> 32));
}

static void test_file_under_load(void **state)
{
	struct vcpu v = {0};
	struct blk_rig b;
	char path[40];
	unsigned n = 0;

	blk_rig_init_io(&b, NULL, true, file_node(path));
	vdrv_start(&b.r.d, UINT64_MAX, 0);
	vcpu_start(&v, &b, 200);
	while (!atomic_load(&v.done)) {
		loop_step(b.r.fv->vm.loop, 1);
		switch (n++ % 3) {
		case 0:
			fake_vm_pause(b.r.fv);
			device_list_resume(&b.r.fv->devices);
			break;
		case 1:
			bar_place(&b.r.d, RIG_BAR + 0x40000000);
			loop_step(b.r.fv->vm.loop, 1);
			bar_place(&b.r.d, RIG_BAR);
			break;
		default:
			loop_step(b.r.fv->vm.loop, 3);
			break;
		}
	}
	bar_place(&b.r.d, RIG_BAR);
	vcpu_join(&v);
	blk_rig_fini(&b);
	file_compare(path, v.model);
	free(v.model);
	unlink(path);
	(void)state;
}

static void test_two_machines(void **state)
{
	struct vcpu v[2] = {0};
	struct blk_rig *b = calloc(2, sizeof(*b));
	char path[2][40];

	for (int i = 0; i < 2; i++) {
		blk_rig_init_io(&b[i], NULL, true, file_node(path[i]));
		vdrv_start(&b[i].r.d, UINT64_MAX, 0);
		vcpu_start(&v[i], &b[i], 60 + 40 * (unsigned)i);
	}
	for (int i = 0; i < 2; i++) {
		while (!atomic_load(&v[i].done)) {
			loop_step(b[0].r.fv->vm.loop, 1);
			loop_step(b[1].r.fv->vm.loop, 1);
		}
	}
	for (int i = 0; i < 2; i++) {
		vcpu_join(&v[i]);
		blk_rig_fini(&b[i]);
		file_compare(path[i], v[i].model);
		free(v[i].model);
		unlink(path[i]);
	}
	free(b);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_device_reset_in_mid_io),
		cmocka_unit_test(test_queue_reset_in_mid_io),
		cmocka_unit_test(test_reset_without_wait),
		cmocka_unit_test(test_transfer),
		cmocka_unit_test(test_transfer_to_another_disk),
		cmocka_unit_test(test_no_allocation),
		cmocka_unit_test(test_file_under_load),
		cmocka_unit_test(test_two_machines),
	};

	return cmocka_run_group_tests_name("virtio-blk life", tests, NULL, NULL);
}
