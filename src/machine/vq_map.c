/* iothread-vq-mapping: see vq_map.h. Control loop. */
#include "machine/vq_map.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "machine/machine_int.h"

#define KEY "iothread-vq-mapping"

_Static_assert(VIRTIO_MAX_QUEUES <= 64, "a queue is a bit of vqs");

/* The list of queues of entry i. */
static int vqs_take(struct vq_map *map, unsigned i, struct opts *o, struct err *err)
{
	for (unsigned j = 0; j < VIRTIO_MAX_QUEUES; j++) {
		uint64_t vq, *vqs = &map->entry[i].vqs;
		char key[64];
		const char *v;

		snprintf(key, sizeof(key), KEY ".%u.vqs.%u", i, j);
		v = opts_get(o, key);
		if (!v) {
			return 0;
		}
		if (parse_u64(v, &vq) || vq >= VIRTIO_MAX_QUEUES) {
			return err_set(err, EINVAL, "%s=%s is not the number of a queue", key, v);
		}
		if (*vqs >> vq & 1) {
			return err_set(err, EINVAL, "%s=%s: the queue is named twice", key, v);
		}
		*vqs |= UINT64_C(1) << vq;
	}
	return 0;
}

int vq_map_take(struct vq_map *map, struct opts *o, struct err *err)
{
	int ret = 0;

	while (!ret && map->count < VIRTIO_MAX_QUEUES) {
		char key[64];

		snprintf(key, sizeof(key), KEY ".%u.iothread", map->count);
		map->entry[map->count].iothread = opts_get(o, key);
		if (!map->entry[map->count].iothread) {
			return 0;
		}
		ret = vqs_take(map, map->count, o, err);
		map->count++;
	}
	return ret;
}

/* All entries say their queues, each queue of n once. */
static int check_listed(const struct vq_map *map, unsigned n, struct err *err)
{
	uint64_t all = n < 64 ? (UINT64_C(1) << n) - 1 : UINT64_MAX, seen = 0;

	for (unsigned i = 0; i < map->count; i++) {
		uint64_t vqs = map->entry[i].vqs;

		if (!vqs) {
			return err_set(err, EINVAL, KEY ": say vqs for every iothread or for none");
		}
		if (vqs & ~all) {
			return err_set(err, EINVAL, KEY ": iothread '%s' is given queue %d, but there "
				       "are queues 0 to %u (num-queues=)", map->entry[i].iothread,
				       63 - __builtin_clzll(vqs), n - 1);
		}
		if (vqs & seen) {
			return err_set(err, EINVAL, KEY ": queue %d is given to two iothreads",
				       __builtin_ctzll(vqs & seen));
		}
		seen |= vqs;
	}
	if (seen != all) {
		return err_set(err, EINVAL, KEY ": no iothread is given queue %d",
			       __builtin_ctzll(all & ~seen));
	}
	return 0;
}

int vq_map_loops(const struct vq_map *map, struct backends *be, unsigned n, bool pairs,
		 struct loop **loops, struct err *err)
{
	bool listed = false;
	int ret;

	for (unsigned i = 0; i < map->count; i++) {
		listed |= map->entry[i].vqs != 0;
		for (unsigned j = 0; j < i; j++) {
			if (!strcmp(map->entry[i].iothread, map->entry[j].iothread)) {
				return err_set(err, EINVAL, KEY ": iothread '%s' is named twice",
					       map->entry[i].iothread);
			}
		}
	}
	if (listed && pairs) {
		return err_set(err, EINVAL, KEY ": the queue pairs of a network card are dealt out in "
			       "turn; leave vqs away");
	}
	ret = listed ? check_listed(map, n, err) : 0;
	for (unsigned i = 0; !ret && i < map->count; i++) {
		struct loop *l = backends_io(be, map->entry[i].iothread);

		if (!l) {
			return err_set(err, ENOENT, KEY ": there is no -object iothread,id=%s",
				       map->entry[i].iothread);
		}
		for (unsigned q = 0; q < n; q++) {
			if (listed ? map->entry[i].vqs >> q & 1 : q % map->count == i) {
				loops[q] = l;
			}
		}
	}
	return ret;
}
