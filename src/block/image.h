/*
 * Images as tools see them: making, describing, checking, snapshots. Each function asks the node's
 * driver, and says so when that has nothing of the kind (-ENOTSUP with a sentence).
 *
 * Control loop. Unless it is said otherwise the caller is a user of the node with the permissions
 * that the change needs, and no request is in flight.
 */
#ifndef BLOCK_IMAGE_H
#define BLOCK_IMAGE_H

#include <jansson.h>

#include "block/block.h"

enum { BLK_FIX_LEAKS = 1, BLK_FIX_ERRORS = 2 };
struct blk_check { /* what a format's check found */
	uint64_t check_errors, corruptions, leaks, corruptions_fixed, leaks_fixed;
	uint64_t image_end_offset, total_clusters, allocated_clusters, fragmented_clusters,
		compressed_clusters;
};
struct blk_snapshot {
	char *id, *name;
	uint64_t vm_state_size, disk_size, vm_clock_nsec, icount;
	uint64_t date_sec;
	uint32_t date_nsec;
};
struct blk_measure {
	uint64_t required, fully_allocated, bitmaps;
	bool has_bitmaps;
};

/* Makes an image of that format in file, whose user has WRITE and RESIZE. o: size=…, and what -o
 * of qemu-img create names. */
int blk_image_create(struct blk_graph *g, const char *driver, struct blk_node *file,
		     struct opts *o, struct err *err);
/* How large a file an image of that format gets: with that content, or empty of o's size. */
int blk_image_measure(const char *driver, struct opts *o, struct blk_node *content,
		      struct blk_measure *out, struct err *err);

/* The backing file's name and format as the image has them; NULL where it has none. Allocated. */
int blk_image_backing(struct blk_node *n, char **file, char **fmt, struct err *err);
/* Writes other names; file NULL: none. Nothing is opened. */
int blk_image_set_backing(struct blk_node *n, const char *file, const char *fmt, struct err *err);
/* Drops everything that the image has, so that all of it is its backing file's. */
int blk_image_empty(struct blk_node *n, struct err *err);
/* What only this format has: {"type": …, "data": {…}}, or NULL. */
int blk_image_specific(struct blk_node *n, json_t **out, struct err *err);
/* Was it closed as it should be? */
bool blk_image_dirty(struct blk_node *n);

int blk_image_check(struct blk_node *n, struct blk_check *out, unsigned fix, struct err *err);
bool blk_image_can_check(const struct blk_node *n);

int blk_image_snapshots(struct blk_node *n, struct blk_snapshot **out, size_t *count,
			struct err *err); /* none, where there can be none */
void blk_image_snapshots_free(struct blk_snapshot *s, size_t count);
int blk_image_snapshot_create(struct blk_node *n, const char *name, struct err *err);
int blk_image_snapshot_apply(struct blk_node *n, const char *id_or_name, struct err *err);
int blk_image_snapshot_delete(struct blk_node *n, const char *id_or_name, struct err *err);
/* A read-only node shows that snapshot from now on. Before its first channel is opened. */
int blk_image_snapshot_load(struct blk_node *n, const char *id_or_name, struct err *err);

/* Makes clusters smaller. One thread uses it; before the node it came from is closed. */
struct blk_packer {
	/* How many bytes of out, or 0: more than cap. */
	size_t (*pack)(struct blk_packer *p, const void *in, size_t len, void *out, size_t cap);
	void (*free)(struct blk_packer *p);
};
struct blk_packer *blk_image_packer(struct blk_node *n); /* NULL: out of memory */
bool blk_image_can_compress(const struct blk_node *n);
/* Makes what such a packer gave the content of clusters. 0 or -errno, and then of some of them. */
#define BLK_PACKED_MAX 64
struct blk_packed {
	uint64_t off; /* of the cluster */
	const void *data;
	size_t len;
};
int blk_image_write_compressed(struct blk_node *n, const struct blk_packed *p, unsigned count);

#endif
