/*
 * KVM's binary statistics (api.rst 4.134, KVM_GET_STATS_FD): a header, descriptors that name
 * each value, and the values, all read with preadv(2) from a descriptor that KVM makes.
 *
 * The descriptor is made with the VM and with each vCPU: a running vCPU holds a lock in KVM that
 * asking for it would wait for, and a guest that halts holds it for ever. Reading takes no lock.
 *
 * Threads: the control loop. Not reachable by a guest; sizes come from the kernel and are
 * capped all the same.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/util.h"
#include "kvm/kvm_int.h"

#define STATS_MAX_DESCS 1024u
#define STATS_MAX_NAME	256u
#define STATS_MAX_VALUE 1024u /* 64-bit words of one statistic */

/* preadv(), which main has already. #syscalls(main): preadv */
static int read_at(int fd, void *buf, size_t len, uint64_t off)
{
	ssize_t n;

	do {
		n = preadv(fd, &(struct iovec){buf, len}, 1, (off_t)off);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : (size_t)n == len ? 0 : -EIO;
}

static void show(const struct kvm_stats_desc *d, const uint64_t *value, stat_fn *fn,
		 void *opaque)
{
	static const enum stat_type types[] = {
		[KVM_STATS_TYPE_CUMULATIVE >> KVM_STATS_TYPE_SHIFT] = STAT_CUMULATIVE,
		[KVM_STATS_TYPE_INSTANT >> KVM_STATS_TYPE_SHIFT] = STAT_INSTANT,
		[KVM_STATS_TYPE_PEAK >> KVM_STATS_TYPE_SHIFT] = STAT_PEAK,
		[KVM_STATS_TYPE_LINEAR_HIST >> KVM_STATS_TYPE_SHIFT] = STAT_LINEAR_HISTOGRAM,
		[KVM_STATS_TYPE_LOG_HIST >> KVM_STATS_TYPE_SHIFT] = STAT_LOG2_HISTOGRAM,
	};
	static const enum stat_unit units[] = {
		[KVM_STATS_UNIT_NONE >> KVM_STATS_UNIT_SHIFT] = STAT_NUMBER,
		[KVM_STATS_UNIT_BYTES >> KVM_STATS_UNIT_SHIFT] = STAT_BYTES,
		[KVM_STATS_UNIT_SECONDS >> KVM_STATS_UNIT_SHIFT] = STAT_SECONDS,
		[KVM_STATS_UNIT_CYCLES >> KVM_STATS_UNIT_SHIFT] = STAT_CYCLES,
		[KVM_STATS_UNIT_BOOLEAN >> KVM_STATS_UNIT_SHIFT] = STAT_BOOLEAN,
	};
	unsigned type = (d->flags & KVM_STATS_TYPE_MASK) >> KVM_STATS_TYPE_SHIFT;
	unsigned unit = (d->flags & KVM_STATS_UNIT_MASK) >> KVM_STATS_UNIT_SHIFT;
	struct stat_sample s = {
		.name = d->name,
		.base = (d->flags & KVM_STATS_BASE_MASK) == KVM_STATS_BASE_POW2 ? 2 : 10,
		.exponent = d->exponent,
		.bucket_size = d->bucket_size,
		.value = value,
		.count = d->size,
	};

	if (type < ARRAY_SIZE(types) &&
	    unit < ARRAY_SIZE(units)) { /* a newer kernel's: left out */
		s.type = types[type];
		s.unit = units[unit];
		fn(opaque, &s);
	}
}

int kvm_stats_read(int fd, stat_fn *fn, void *opaque)
{
	uint64_t value[STATS_MAX_VALUE];
	struct kvm_stats_header h;
	struct kvm_stats_desc *d;
	size_t size;
	char *descs;
	int r = read_at(fd, &h, sizeof(h), 0);

	if (r) {
		return r;
	}
	if (h.name_size > STATS_MAX_NAME || h.num_desc > STATS_MAX_DESCS) {
		return -E2BIG;
	}
	size = sizeof(*d) + h.name_size;
	descs = malloc(size * h.num_desc + 1);
	if (!descs) {
		return -ENOMEM;
	}
	r = read_at(fd, descs, size * h.num_desc, h.desc_offset);
	for (uint32_t i = 0; !r && i < h.num_desc; i++) {
		d = (struct kvm_stats_desc *)(void *)(descs + i * size);
		if (d->size < 1 || d->size > STATS_MAX_VALUE ||
		    !memchr(d->name, 0, h.name_size)) {
			r = -EPROTO;
			break;
		}
		r = read_at(fd, value, d->size * sizeof(value[0]),
			    h.data_offset + (uint64_t)d->offset);
		if (!r) {
			show(d, value, fn, opaque);
		}
	}
	free(descs);
	return r;
}

/* #ioctls(start): KVM_GET_STATS_FD */
int kvm_stats_open(int fd)
{
	int stats = ioctl(fd, KVM_GET_STATS_FD, NULL);

	return stats < 0 ? -1 : stats; /* Linux before 5.14 */
}

int kvm_stats_each(struct kvm_vm *vm, struct kvm_vcpu *v, stat_fn *fn, void *opaque,
		   struct err *err)
{
	int fd = v ? v->stats_fd : vm->stats_fd, r;

	if (fd < 0) {
		return 0;
	}
	r = kvm_stats_read(fd, fn, opaque);
	return r ? err_set(err, -r, "the statistics of KVM cannot be read: %s", strerror(-r))
		 : 0;
}

uint64_t kvm_vcpu_bus_stat(const struct kvm_vcpu *v, unsigned i, bool write)
{
	return bus_reader_stat(v->bus, i, write);
}
