/*
 * Flash: OVMF's detection, programming and erasing as its driver does them, slots, the file that
 * follows (order, crash at any moment, errors), opening of good and bad files, state.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fakes/fakes.h"
#include "firmware/flash.h"
#include "spec/cfi_flash.h"

#define VARS (16 * 4096)
#define CODE (8 * 4096)

struct env {
	struct fake_vm *fv;
	struct mem_listener kvm; /* knows which regions have a memory slot */
	bool slot;		 /* the variables have */
	char dir[64], vars[96], code[96];
	uint64_t base; /* of the variables */
};

static void write_file(const char *path, size_t len, unsigned seed)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	for (size_t i = 0; i < len; i++) {
		fputc((int)(seed ? (i * seed + (i >> 8)) & 0xff : 0xff), f);
	}
	fclose(f);
}

static uint8_t *read_file(const char *path, size_t len)
{
	uint8_t *p = malloc(len + 1);
	FILE *f = fopen(path, "r");

	assert_non_null(f);
	assert_non_null(p);
	assert_int_equal(fread(p, 1, len + 1, f), len);
	fclose(f);
	return p;
}

static int slot_add(struct mem_listener *l, struct mem_region *r, struct err *err)
{
	struct env *e = container_of(l, struct env, kvm);

	e->slot |= mem_region_gpa(r) == e->base;
	return 0;
}

static void slot_del(struct mem_listener *l, struct mem_region *r)
{
	struct env *e = container_of(l, struct env, kvm);

	e->slot &= mem_region_gpa(r) != e->base;
}

static const struct mem_listener_ops slot_ops = {
	.name = "slots",
	.firmware = true,
	.region_add = slot_add,
	.region_del = slot_del,
};

static void machine_new(struct env *e, bool real_clock)
{
	struct fake_vm_config cfg = {.real_clock = real_clock};

	e->fv = fake_vm_new(&cfg);
	e->slot = false;
	e->kvm = (struct mem_listener){.ops = &slot_ops};
	assert_int_equal(mem_listener_add(e->fv->vm.mem, &e->kvm, NULL), 0);
}

static void machine_free(struct env *e)
{
	mem_listener_del(e->fv->vm.mem, &e->kvm);
	fake_vm_free(e->fv);
	e->fv = NULL;
}

static int open_units(struct env *e, struct err *err)
{
	const struct flash_config unit[] = {
		{.option = "-drive if=pflash,unit=0", .path = e->code, .readonly = true},
		{.option = "-drive if=pflash,unit=1", .path = e->vars},
	};

	return flash_new(&e->fv->vm, unit, 2, err);
}

static int setup(void **state)
{
	struct env *e = calloc(1, sizeof(*e));
	struct err err;

	strcpy(e->dir, "/tmp/nemu-flash-XXXXXX");
	assert_non_null(mkdtemp(e->dir));
	snprintf(e->vars, sizeof(e->vars), "%s/vars", e->dir);
	snprintf(e->code, sizeof(e->code), "%s/code", e->dir);
	write_file(e->vars, VARS, 0);
	write_file(e->code, CODE, 13);
	e->base = 4 * GiB - CODE - VARS;
	machine_new(e, false);
	if (open_units(e, &err)) {
		fail_msg("%s", err.msg);
	}
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	machine_free(e);
	unlink(e->vars);
	unlink(e->code);
	rmdir(e->dir);
	free(e);
	return 0;
}

/* The guest's view: the slot when there is one, else an exit. */
static bool direct(struct env *e)
{
	return e->slot;
}

static void wr(struct env *e, uint32_t off, uint8_t v)
{
	fake_mmio_write(e->fv, e->base + off, v, 1);
}

static uint8_t rd(struct env *e, uint32_t off)
{
	uint8_t v;

	if (direct(e)) {
		assert_int_equal(mem_read(e->fv->vm.mem, e->base + off, &v, 1), 0);
		return v;
	}
	return (uint8_t)fake_mmio_read(e->fv, e->base + off, 1);
}

static void program(struct env *e, uint32_t off, const void *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		wr(e, off + (uint32_t)i, CFI_CMD_PROGRAM_ALT);
		wr(e, off + (uint32_t)i, ((const uint8_t *)p)[i]);
	}
	wr(e, off + (uint32_t)len - 1, CFI_CMD_READ_ARRAY);
}

static void erase(struct env *e, uint32_t off)
{
	wr(e, off, CFI_CMD_ERASE);
	wr(e, off, CFI_CMD_CONFIRM);
}

/* Lets the control loop write everything that is due. */
static void drain(struct env *e)
{
	for (int i = 0; i < 300; i++) {
		loop_clock_advance(e->fv->vm.loop, 20000000);
		loop_step(e->fv->vm.loop, 0);
	}
}

static void test_map(void **state)
{
	struct env *e = *state;
	uint8_t b[4], *code = read_file(e->code, CODE);

	/* code ends at 4 GiB, variables directly below; writes to code vanish */
	assert_int_equal(mem_read(e->fv->vm.mem, 4 * GiB - 4, b, 4), 0);
	assert_memory_equal(b, code + CODE - 4, 4);
	assert_int_equal(mem_read(e->fv->vm.mem, 4 * GiB - CODE, b, 4), 0);
	assert_memory_equal(b, code, 4);
	assert_int_equal(rd(e, VARS - 1), 0xff);
	fake_mmio_write(e->fv, 4 * GiB - 4, 0x10, 1);
	fake_mmio_write(e->fv, 4 * GiB - 4, 0x00, 1);
	assert_int_equal(mem_read(e->fv->vm.mem, 4 * GiB - 4, b, 4), 0);
	assert_memory_equal(b, code + CODE - 4, 4);
	/* devices cannot write either */
	assert_true(mem_write(e->fv->vm.mem, e->base, b, 4) < 0);
	free(code);
}

/* QemuFlash.c of OVMF: a byte that is not 0x50, 0x70 or 0x00. */
static void test_detection(void **state)
{
	struct env *e = *state;

	assert_int_equal(rd(e, 7), 0xff);
	wr(e, 7, CFI_CMD_CLEAR_STATUS);
	assert_true(direct(e));
	assert_int_not_equal(rd(e, 7), CFI_CMD_CLEAR_STATUS);
	wr(e, 7, CFI_CMD_READ_STATUS);
	assert_false(direct(e));
	assert_int_equal(rd(e, 7), 0x00);
	wr(e, 7, CFI_CMD_READ_ARRAY);
	assert_true(direct(e));
	assert_int_equal(rd(e, 7), 0xff);
}

static void test_program_erase(void **state)
{
	struct env *e = *state;
	uint8_t *file;

	program(e, 4090, "0123456789ab", 12); /* over two blocks */
	assert_true(direct(e));
	assert_int_equal(rd(e, 4090), '0');
	assert_int_equal(rd(e, 4101), 'b');
	/* bits are cleared only */
	wr(e, 4090, CFI_CMD_PROGRAM);
	wr(e, 4090, 0xcf);
	assert_int_equal(rd(e, 4090), 0x00);
	/* after a program the status is ready; clear it */
	wr(e, 0, CFI_CMD_READ_STATUS);
	assert_int_equal(rd(e, 0), CFI_STATUS_READY);
	wr(e, 0, CFI_CMD_CLEAR_STATUS);
	assert_int_equal(rd(e, 0), 0);
	/* erase of a block, from status mode: the array is back at once */
	erase(e, 4096 + 77);
	assert_true(direct(e));
	assert_int_equal(rd(e, 4101), 0xff);
	assert_int_equal(rd(e, 4095), '5');
	/* an erase that is not confirmed */
	wr(e, 0, CFI_CMD_ERASE);
	wr(e, 0, 0x12);
	assert_int_equal(rd(e, 4095), '5');
	wr(e, 0, CFI_CMD_READ_STATUS);
	assert_int_equal(rd(e, 0), 0xb0);
	wr(e, 0, CFI_CMD_READ_ARRAY);
	/* wide accesses are bytes, one after the other */
	fake_mmio_write(e->fv, e->base + 0x100, 0x1140, 2); /* 40 to 0x100, 11 to 0x101 */
	assert_int_equal(rd(e, 0x101), 0x11);
	drain(e);
	file = read_file(e->vars, VARS);
	assert_int_equal(file[4095], '5');
	assert_int_equal(file[4090], 0);
	assert_int_equal(file[4101], 0xff);
	assert_int_equal(file[0x101], 0x11);
	free(file);
}

static void test_identify(void **state)
{
	struct env *e = *state;

	wr(e, 0x55, CFI_CMD_QUERY);
	assert_int_equal(rd(e, 0x10), 'Q');
	assert_int_equal(rd(e, 0x11), 'R');
	assert_int_equal(rd(e, 0x12), 'Y');
	assert_int_equal(rd(e, 0x27), 16); /* 64 KiB */
	assert_int_equal(rd(e, 0x2c), 1);
	assert_int_equal(rd(e, 0x2d), VARS / 4096 - 1);
	assert_int_equal(rd(e, 0x2f) | rd(e, 0x30) << 8, 16); /* times 256 */
	assert_int_equal(rd(e, VARS - 1), 0);
	wr(e, 0, CFI_CMD_READ_ID);
	assert_int_equal(rd(e, 0), 0x89);
	assert_int_equal(rd(e, 5), 0);
	/* what is no command goes back to the array */
	wr(e, 0, 0x42);
	assert_true(direct(e));
	device_list_reset(&e->fv->devices);
	wr(e, 0, CFI_CMD_READ_STATUS);
	device_list_reset(&e->fv->devices);
	assert_true(direct(e));
	/* a reset between the two bytes of a command */
	wr(e, 0, CFI_CMD_PROGRAM);
	device_list_reset(&e->fv->devices);
	wr(e, 0, 0x00);
	assert_int_equal(rd(e, 0), 0xff);
}

/* --- the file --- */

static void test_write_back(void **state)
{
	struct env *e = *state;
	uint8_t *file;

	program(e, 0, "abc", 3);
	fake_vm_settle(e->fv);
	file = read_file(e->vars, VARS);
	assert_int_equal(file[0], 0xff); /* not yet */
	free(file);
	fake_vm_pause(e->fv);
	file = read_file(e->vars, VARS);
	assert_memory_equal(file, "abc", 3);
	free(file);
	device_list_resume(&e->fv->devices);
	program(e, 0x8000, "def", 3);
	/* destroyed: everything is there, nothing else has changed */
	machine_free(e);
	file = read_file(e->vars, VARS);
	assert_memory_equal(file, "abc\xff", 4);
	assert_memory_equal(file + 0x8000, "def\xff", 4);
	free(file);
	/* and the next start finds it */
	machine_new(e, false);
	assert_int_equal(open_units(e, NULL), 0);
	assert_int_equal(rd(e, 0x8001), 'e');
}

/*
 * Crash consistency: after every round of the loop the file is what the flash was after some
 * prefix of the operations. Each operation is a version; versions of all blocks are recorded.
 */
#define OPS 600
static void test_prefix(void **state)
{
	struct env *e = *state;
	uint8_t *shadow = malloc(VARS), *versions = malloc((size_t)(OPS + 1) * VARS);
	unsigned n = 0, at = 0;

	memset(shadow, 0xff, VARS);
	memcpy(versions, shadow, VARS);
	srand(3);
	while (n < OPS) {
		unsigned burst = 1 + (unsigned)rand() % 12;

		for (; burst && n < OPS; burst--) {
			uint32_t off = (uint32_t)rand() % VARS;

			if (rand() % 4) {
				uint8_t v = (uint8_t)rand();

				wr(e, off, CFI_CMD_PROGRAM);
				wr(e, off, v);
				shadow[off] &= v;
			} else {
				erase(e, off);
				memset(shadow + off / 4096 * 4096, 0xff, 4096);
			}
			memcpy(versions + (size_t)++n * VARS, shadow, VARS);
			assert_int_equal(rd(e, off), shadow[off]);
		}
		for (int i = rand() % 6; i; i--) {
			uint8_t *file;

			loop_clock_advance(e->fv->vm.loop, 11000000);
			loop_step(e->fv->vm.loop, 0);
			file = read_file(e->vars, VARS);
			while (memcmp(file, versions + (size_t)at * VARS, VARS)) {
				at++;
				if (at > n) {
					fail_msg("the file is no prefix after %u operations",
						 n);
				}
			}
			free(file);
		}
	}
	fake_vm_pause(e->fv);
	{
		uint8_t *file = read_file(e->vars, VARS);

		assert_memory_equal(file, shadow, VARS);
		free(file);
	}
	free(versions);
	free(shadow);
}

/* kill -9 in the middle of it: a counter in each of two blocks, always written one after the
 * other, differs by one at most afterwards. */
static void test_kill(void **state)
{
	struct env *e = *state;

	machine_free(e); /* and its lock */
	for (int round = 0; round < 4; round++) {
		uint8_t *file;
		unsigned a = 0, b = 0;
		pid_t pid;
		int status;

		write_file(e->vars, VARS, 0);
		pid = fork();
		assert_true(pid >= 0);
		if (!pid) {
			machine_new(e, true);
			if (open_units(e, NULL)) {
				_exit(1);
			}
			for (uint32_t i = 0; i < 4096; i++) {
				wr(e, i, CFI_CMD_PROGRAM);
				wr(e, i, 0);
				wr(e, 4096 + i, CFI_CMD_PROGRAM);
				wr(e, 4096 + i, 0);
				loop_step(e->fv->vm.loop, 0);
			}
			_exit(0);
		}
		usleep(30000 + 20000 * (unsigned)round);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		file = read_file(e->vars, VARS);
		while (a < 4096 && !file[a]) {
			a++;
		}
		while (b < 4096 && !file[4096 + b]) {
			b++;
		}
		assert_true(a == b || a == b + 1);
		for (unsigned i = a; i < 4096; i++) {
			assert_int_equal(file[i], 0xff);
		}
		free(file);
	}
	machine_new(e, false);
}

/* More blocks than the queue holds, without the loop running in between. */
static void test_backpressure(void **state)
{
	struct env *e = *state;
	uint8_t *file;

	for (uint32_t i = 0; i < 300; i++) {
		program(e, (i * 5 % 16) * 4096 + i, "\0", 1);
	}
	fake_vm_pause(e->fv);
	file = read_file(e->vars, VARS);
	for (uint32_t i = 0; i < 300; i++) {
		assert_int_equal(file[(i * 5 % 16) * 4096 + i], 0);
	}
	free(file);
}

/* The file cannot be written for a while: reported, retried, nothing lost. When the queue is full
 * as well, the chip says that programming failed. */
static void file_limit(rlim_t bytes)
{
	struct rlimit lim = {.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};

	assert_int_equal(setrlimit(RLIMIT_FSIZE, &lim), 0);
}

static void test_write_error(void **state)
{
	struct env *e = *state;
	uint8_t *file;

	/* beyond the limit on file sizes, pwrite() fails */
	signal(SIGXFSZ, SIG_IGN);
	file_limit(4096);
	program(e, 8192, "x", 1);
	program(e, 12288, "y", 1);
	drain(e);
	assert_int_equal(rd(e, 8192), 'x');
	file_limit(RLIM_INFINITY);
	file = read_file(e->vars, VARS);
	assert_int_equal(file[8192], 0xff);
	free(file);
	drain(e); /* tries again after a second */
	file = read_file(e->vars, VARS);
	assert_int_equal(file[8192], 'x');
	assert_int_equal(file[12288], 'y');
	free(file);

	/* the queue fills: the chip fails, memory and file stay together */
	file_limit(4096);
	for (uint32_t i = 0; i < 200; i++) {
		program(e, (1 + i % 15) * 4096 + 100 + i, "\0", 1);
	}
	wr(e, 0, CFI_CMD_READ_STATUS);
	assert_int_equal(rd(e, 0), CFI_STATUS_READY | CFI_STATUS_PROGRAM_ERROR);
	wr(e, 0, CFI_CMD_CLEAR_STATUS);
	erase(e, 8192);
	wr(e, 0, CFI_CMD_READ_STATUS);
	assert_int_equal(rd(e, 0), CFI_STATUS_READY | CFI_STATUS_ERASE_ERROR);
	wr(e, 0, CFI_CMD_READ_ARRAY);
	fake_vm_pause(e->fv); /* does not hang */
	file_limit(RLIM_INFINITY);
	device_list_resume(&e->fv->devices);
	drain(e);
	file = read_file(e->vars, VARS);
	for (uint32_t off = 0; off < VARS; off++) {
		assert_int_equal(file[off], rd(e, off));
	}
	assert_int_equal(file[4096 + 100], 0);
	free(file);
}

/* --- state --- */

static void test_state(void **state)
{
	struct env *a = *state, *b = NULL, *c = NULL;
	struct err err;
	uint8_t *file;

	setup((void **)&b);
	setup((void **)&c);
	for (uint32_t i = 0; i < 16; i++) {
		program(a, i * 4096 + i, &(uint8_t){(uint8_t)i}, 1);
	}
	wr(a, 0, CFI_CMD_READ_STATUS);
	wr(a, 123, CFI_CMD_PROGRAM); /* half a command */
	fake_vm_pause(a->fv);
	fake_vm_pause(b->fv);
	assert_int_equal(fake_vm_transfer(a->fv, b->fv, &err), 0);
	device_list_resume(&b->fv->devices);
	assert_false(direct(b));
	assert_int_equal(rd(b, 55), CFI_STATUS_READY);
	wr(b, 123, 0x77);
	assert_true(direct(b));
	assert_int_equal(rd(b, 123), 0x77);
	assert_int_equal(rd(b, 3 * 4096 + 3), 3);
	/* the file over there follows */
	drain(b);
	file = read_file(b->vars, VARS);
	for (uint32_t i = 0; i < 16; i++) {
		assert_int_equal(file[i * 4096 + i], i);
	}
	assert_int_equal(file[123], 0x77);
	free(file);
	/* a file of another size */
	machine_free(c);
	write_file(c->vars, 2 * VARS, 0);
	machine_new(c, false);
	assert_int_equal(open_units(c, &err), 0);
	fake_vm_pause(c->fv);
	assert_int_equal(fake_vm_transfer(a->fv, c->fv, &err), -EINVAL);
	assert_non_null(strstr(err.msg, c->vars));
	teardown((void **)&b);
	teardown((void **)&c);
}

/* --- threads: programs on one vCPU, mode changes on another, the loop in between --- */

struct prog {
	struct env *e;
	bool toggles;
	_Atomic unsigned *running;
};

static void *prog_main(void *arg)
{
	struct prog *p = arg;
	struct fake_cpu cpu;

	fake_cpu_init(&cpu, p->e->fv);
	for (uint32_t i = 0; i < (p->toggles ? 500u : 8000u); i++) {
		uint64_t at = p->e->base + (p->toggles ? VARS - 1 : i);

		if (p->toggles) {
			fake_cpu_mmio_write(&cpu, at, CFI_CMD_READ_STATUS, 1);
			fake_cpu_mmio_read(&cpu, at, 1);
			fake_cpu_mmio_write(&cpu, at, CFI_CMD_READ_ARRAY, 1);
		} else {
			fake_cpu_mmio_write(&cpu, at, CFI_CMD_PROGRAM, 1);
			fake_cpu_mmio_write(&cpu, at, 0, 1);
		}
	}
	fake_cpu_fini(&cpu);
	(*p->running)--;
	return NULL;
}

static void test_threads(void **state)
{
	struct env *e = *state;
	_Atomic unsigned running = 1;
	struct prog p = {.e = e, .running = &running};
	pthread_t t;
	uint8_t *file;

	/* alone first: every byte arrives */
	assert_int_equal(pthread_create(&t, NULL, prog_main, &p), 0);
	while (running) {
		loop_step(e->fv->vm.loop, 1);
		loop_clock_advance(e->fv->vm.loop, 5000000);
	}
	pthread_join(t, NULL);
	fake_vm_pause(e->fv);
	file = read_file(e->vars, VARS);
	for (uint32_t i = 0; i < 8000; i++) {
		assert_int_equal(file[i], 0);
	}
	free(file);
	device_list_resume(&e->fv->devices);
	/* together: commands mix, which is the guest's own fault, but the device lives and its
	 * slot ends where its mode says */
	{
		struct prog q[2] = {{.e = e, .running = &running},
				    {.e = e, .toggles = true, .running = &running}};
		pthread_t u[2];

		running = 2;
		for (int i = 0; i < 2; i++) {
			assert_int_equal(pthread_create(&u[i], NULL, prog_main, &q[i]), 0);
		}
		while (running) {
			loop_step(e->fv->vm.loop, 1);
			loop_clock_advance(e->fv->vm.loop, 5000000);
		}
		for (int i = 0; i < 2; i++) {
			pthread_join(u[i], NULL);
		}
		wr(e, 0, CFI_CMD_READ_STATUS);
		wr(e, 0, CFI_CMD_READ_ARRAY);
		wr(e, 0, CFI_CMD_READ_ARRAY);
		assert_true(direct(e));
	}
}

/* --- opening --- */

static void refused(struct env *e, int want, const char *word)
{
	struct fake_vm *fv = fake_vm_new(NULL);
	struct fake_vm *old = e->fv;
	struct err err = {0};
	uint8_t v;
	int ret;

	e->fv = fv;
	ret = open_units(e, &err);
	e->fv = old;
	if (ret != want || !strstr(err.msg, word) ||
	    !strstr(err.msg, "-drive if=pflash,unit=")) {
		fail_msg("%d: %s", ret, err.msg);
	}
	/* nothing left behind */
	assert_true(mem_read(fv->vm.mem, 4 * GiB - 1, &v, 1) < 0);
	assert_true(list_empty(&fv->devices.devices));
	fake_vm_free(fv);
}

static void test_open(void **state)
{
	struct env *e = *state;
	struct fake_vm *fv;
	const struct flash_config bios = {.option = "-bios", .path = e->code, .readonly = true};
	struct err err;
	uint8_t v;

	/* in use: by this process' other machine, through another open file */
	refused(e, -EBUSY, "in use");
	machine_free(e);
	machine_new(e, false);

	assert_int_equal(truncate(e->vars, 4095), 0);
	refused(e, -EINVAL, "4095 bytes");
	assert_int_equal(truncate(e->vars, 0), 0);
	refused(e, -EINVAL, "0 bytes");
	assert_int_equal(truncate(e->vars, 16 * MiB), 0);
	refused(e, -EINVAL, "together");
	assert_int_equal(truncate(e->vars, 16 * MiB + 4096), 0);
	refused(e, -EINVAL, "16 MiB");
	unlink(e->vars);
	refused(e, -ENOENT, e->vars);
	assert_int_equal(mkfifo(e->vars, 0600), 0);
	refused(e, -EINVAL, "not a regular file");
	unlink(e->vars);
	assert_int_equal(mkdir(e->vars, 0700), 0);
	refused(e, -EISDIR, e->vars);
	rmdir(e->vars);
	write_file(e->vars, VARS, 0);
	assert_int_equal(truncate(e->code, 1), 0);
	refused(e, -EINVAL, "1 bytes");
	write_file(e->code, CODE, 13);
	if (geteuid()) {
		assert_int_equal(chmod(e->vars, 0400), 0);
		refused(e, -EACCES, "readonly=on");
		assert_int_equal(chmod(e->vars, 0600), 0);
	}
	/* -bios: one read-only image; the file is free again */
	fv = fake_vm_new(NULL);
	assert_int_equal(flash_new(&fv->vm, &bios, 1, &err), 0);
	assert_int_equal(mem_read(fv->vm.mem, 4 * GiB - CODE, &v, 1), 0);
	assert_int_equal(mem_read(fv->vm.mem, 4 * GiB - CODE - 1, &v, 1), -EFAULT);
	assert_true(list_empty(&fv->devices.devices));
	fake_vm_free(fv);
	/* the largest size, as one writable image (firmware and variables in one file) */
	assert_int_equal(truncate(e->vars, 16 * MiB), 0);
	{
		const struct flash_config all = {.option = "-drive if=pflash,unit=0",
						 .path = e->vars};

		fv = fake_vm_new(NULL);
		assert_int_equal(flash_new(&fv->vm, &all, 1, &err), 0);
		fake_mmio_write(fv, 4 * GiB - 16 * MiB, CFI_CMD_ERASE, 1);
		fake_mmio_write(fv, 4 * GiB - 16 * MiB, CFI_CMD_CONFIRM, 1);
		assert_int_equal(mem_read(fv->vm.mem, 4 * GiB - 16 * MiB, &v, 1), 0);
		assert_int_equal(v, 0xff);
		fake_vm_free(fv);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_map),	  T(test_detection),	T(test_program_erase),
		T(test_identify), T(test_write_back),	T(test_prefix),
		T(test_kill),	  T(test_backpressure), T(test_write_error),
		T(test_state),	  T(test_threads),	T(test_open),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
