/*
 * The whole state of a paused machine as one stream of declared sections: the machine's
 * identity, guest memory, vCPUs and clock, then every device. Loading takes the stream as
 * hostile: framing and checksum first, then each section against its table.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/machine_int.h"
#include "state/state.h"

#define STATE_MAX_FILE (UINT64_C(1) << 40)

struct machine_state {
	uint64_t ram;
	uint32_t cpus;
	uint32_t devices;
};
static const struct state_field fields[] = {
	STATE_F_U64(struct machine_state, ram),
	STATE_F_U32(struct machine_state, cpus),
	STATE_F_U32(struct machine_state, devices),
	STATE_F_END,
};
static const struct state_desc machine_state_desc = {
	.name = "machine", .version = 1, .min_version = 1, .size = sizeof(struct machine_state),
	.fields = fields,
};

static void identity(struct machine *m, struct machine_state *st)
{
	struct list *p;

	*st = (struct machine_state){.ram = m->memory.size, .cpus = m->cfg->cpus};
	list_for_each(p, &m->devices.devices) {
		st->devices++;
	}
}

static int save_region(struct mem_region *r, void *arg)
{
	if (mem_region_kind(r) != MEM_RAM) {
		return 0; /* firmware: the code is the same file, the variables are a device's */
	}
	return state_put_blob(arg, "ram", mem_region_name(r), mem_region_host(r),
			      mem_region_size(r));
}

/* #syscalls(main): write */
static int write_all(int fd, const void *data, size_t len, struct err *err)
{
	const char *p = data;

	while (len) {
		ssize_t n = write(fd, p, MIN(len, (size_t)(256 * MiB)));

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			return err_set(err, n ? errno : EIO, "the state cannot be written: %s",
				       strerror(n ? errno : EIO));
		}
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int machine_save_fd(struct machine *m, int fd, struct err *err)
{
	struct machine_state id;
	struct state_out *o;
	const void *data;
	size_t len;
	int ret;

	if (m->state == RUN_RUNNING || m->phase != PHASE_IDLE) {
		return err_set(err, EBUSY, "the machine runs; stop it before its state is saved");
	}
	ret = state_out_new(&o);
	if (ret) {
		return err_set(err, -ret, "out of memory for the state");
	}
	identity(m, &id);
	ret = state_put(o, &machine_state_desc, "machine", &id);
	if (ret) {
		err_set(err, -ret, "out of memory for the state");
	}
	/* The clock runs on while the machine is paused: first of all, so that the guest does not
	 * miss the time that its memory takes. */
	ret = ret ? ret : board_save(m, o, err);
	ret = ret ? ret : device_list_save(&m->devices, o, err);
	if (!ret) {
		ret = mem_for_each(m->vm.mem, save_region, o);
		if (ret) {
			err_set(err, -ret, "out of memory for the state");
		}
	}
	if (!ret && state_out_finish(o, &data, &len)) {
		ret = err_set(err, ENOMEM, "out of memory for the state");
	}
	ret = ret ? ret : write_all(fd, data, len, err);
	state_out_free(o);
	return ret;
}

struct loading {
	struct state_in *in;
	struct err *err;
};

static int load_region(struct mem_region *r, void *arg)
{
	struct loading *l = arg;
	const void *data;
	uint64_t len;
	int ret;

	if (mem_region_kind(r) != MEM_RAM) {
		return 0;
	}
	ret = state_get_blob(l->in, "ram", mem_region_name(r), &data, &len, l->err);
	if (ret) {
		return ret;
	}
	if (len != mem_region_size(r)) {
		return err_set(l->err, EINVAL, "memory '%s' has %llu bytes in the state and %llu here",
			       mem_region_name(r), (unsigned long long)len,
			       (unsigned long long)mem_region_size(r));
	}
	memcpy(mem_region_host(r), data, len);
	return 0;
}

static int load_stream(struct machine *m, const void *data, size_t len, struct err *err)
{
	struct machine_state have, want;
	struct loading l = {.err = err};
	int ret;

	ret = state_in_open(&l.in, data, len, err);
	if (ret) {
		return ret;
	}
	identity(m, &want);
	ret = state_get(l.in, &machine_state_desc, "machine", &have, err);
	if (!ret && memcmp(&have, &want, sizeof(have))) {
		ret = err_set(err, EINVAL, "the state is of a machine with %llu MiB, %u CPUs and %u "
			      "devices; this one has %llu, %u and %u",
			      (unsigned long long)(have.ram / MiB), have.cpus, have.devices,
			      (unsigned long long)(want.ram / MiB), want.cpus, want.devices);
	}
	ret = ret ? ret : mem_for_each(m->vm.mem, load_region, &l);
	ret = ret ? ret : device_list_load(&m->devices, l.in, err);
	ret = ret ? ret : board_load(m, l.in, err);
	ret = ret ? ret : state_in_check_used(l.in, err);
	state_in_free(l.in);
	return ret;
}

/* #syscalls(start): mmap munmap fstat */
int machine_load_fd(struct machine *m, int fd, struct err *err)
{
	struct stat st;
	void *data;
	int ret;

	if (m->started) {
		return err_set(err, EBUSY, "state is loaded before the machine is started");
	}
	if (fstat(fd, &st) || st.st_size <= 0 || (uint64_t)st.st_size > STATE_MAX_FILE) {
		return err_set(err, EINVAL, "the state is not a regular file of a sensible size");
	}
	data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED) {
		return err_set(err, errno, "the state cannot be mapped: %s", strerror(errno));
	}
	ret = load_stream(m, data, (size_t)st.st_size, err);
	munmap(data, (size_t)st.st_size);
	return ret;
}
