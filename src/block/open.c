/*
 * -blockdev's options, read by a table, and the node they ask for.
 *
 * driver=raw is a layer with nothing in it, so "raw over file" and "file" make the same node;
 * both spellings of the protocol's options (filename=… and file.filename=…) are taken, each
 * once. The content of an image is never probed: driver= says what it is.
 *
 * Untrusted: pairs may come from a QMP client.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "block/block_int.h"

enum driver { DRIVER_RAW, DRIVER_FILE, DRIVER_HOST_DEVICE, DRIVER_NULL };

struct blockdev {
	char *node_name, *filename, *file_filename, *file_node_name;
	int driver, file_driver, discard, aio, file_aio, locking, file_locking;
	bool read_only, direct, no_flush;
	uint64_t size;
};

static const char *const driver_names[] = {"raw", "file", "host_device", "null-co", NULL};
static const char *const discard_names[] = {"ignore", "unmap", NULL};
static const char *const aio_names[] = {"io_uring", NULL};
static const char *const locking_names[] = {"auto", "on", "off", NULL};

#define ROW(k, t, f, d, text)                                                                  \
	{                                                                                      \
		.key = k, .type = t, .offset = offsetof(struct blockdev, f), .def = d,         \
		.doc = text                                                                    \
	}
#define ROW_ENUM(k, f, n, d, text)                                                             \
	{                                                                                      \
		.key = k, .type = OPT_ENUM, .offset = offsetof(struct blockdev, f),            \
		.names = n, .def = d, .doc = text                                              \
	}

static const struct opt_desc rows[] = {
	ROW_ENUM("driver", driver, driver_names, "raw", "what the node is"),
	ROW_ENUM("file.driver", file_driver, driver_names, NULL, "what a raw node stands on"),
	ROW("node-name", OPT_STR, node_name, NULL, "the name devices refer to"),
	ROW("file.node-name", OPT_STR, file_node_name, NULL, "name of the lower node"),
	ROW("filename", OPT_STR, filename, NULL, "path of a file or block device"),
	ROW("file.filename", OPT_STR, file_filename, NULL, "the same, below driver=raw"),
	ROW("read-only", OPT_BOOL, read_only, "off", "the guest cannot write"),
	ROW("cache.direct", OPT_BOOL, direct, "off", "past the host's page cache (O_DIRECT)"),
	ROW("cache.no-flush", OPT_BOOL, no_flush, "off", "ignore the guest's flushes: unsafe"),
	ROW_ENUM("discard", discard, discard_names, "ignore", "whether freed blocks are freed"),
	ROW_ENUM("aio", aio, aio_names, "io_uring", "how requests are made"),
	ROW_ENUM("file.aio", file_aio, aio_names, "io_uring", "the same, below driver=raw"),
	ROW_ENUM("locking", locking, locking_names, "auto", "whether the image is locked"),
	ROW_ENUM("file.locking", file_locking, locking_names, "auto", "the same"),
	ROW("size", OPT_SIZE, size, "1073741824", "of driver=null-co"),
	{.key = NULL},
};

static int open_null(const struct blockdev *b, struct blk_node **out, struct err *err)
{
	int r;

	if (b->filename || b->file_filename) {
		return err_set(err, EINVAL, "driver=null-co takes no filename; leave it away");
	}
	if (!b->size || b->size % 512 || b->size > INT64_MAX) {
		return err_set(err, EINVAL, "driver=null-co: size must be a multiple of 512");
	}
	r = blk_null_new(b->node_name, b->size, b->read_only, out);
	return r < 0 ? err_set(err, -r, "driver=null-co: out of memory") : 0;
}

static int open_read(struct opts *o, const struct blockdev *b, struct blk_node **out,
		     struct err *err)
{
	const char *filename = b->filename ? b->filename : b->file_filename;
	int protocol = b->driver == DRIVER_RAW ? b->file_driver : b->driver;

	if (b->driver != DRIVER_RAW && b->file_driver >= 0) {
		return err_set(err, EINVAL,
			       "%s: driver=%s stands on no other node; leave file.driver away",
			       o->what, driver_names[b->driver]);
	}
	if (protocol == DRIVER_NULL) {
		return open_null(b, out, err);
	}
	if (protocol == DRIVER_RAW) {
		return err_set(err, EINVAL, "%s: raw over raw; say file.driver=file", o->what);
	}
	if (b->filename && b->file_filename) {
		return err_set(err, EINVAL,
			       "%s: filename and file.filename are both given; keep one",
			       o->what);
	}
	if (!filename || !*filename) {
		return err_set(err, EINVAL, "%s: filename is missing; add filename=FILE",
			       o->what);
	}
	return blk_file_open(
		&(struct blk_file_config){
			.filename = filename,
			.node_name = b->node_name,
			.read_only = b->read_only,
			.direct = b->direct,
			.no_flush = b->no_flush,
			.unmap = b->discard == 1,
			.locking =
				(enum blk_locking)(b->locking ? b->locking : b->file_locking),
			.kind = protocol == DRIVER_FILE		 ? BLK_FILE_REGULAR
				: protocol == DRIVER_HOST_DEVICE ? BLK_FILE_DEVICE
								 : BLK_FILE_ANY,
		},
		out, err);
}

int blk_open(struct opts *o, struct blk_node **out, struct err *err)
{
	struct blockdev b = {.file_driver = -1};
	int r = opts_read(o, rows, &b, err);

	if (!r) {
		r = open_read(o, &b, out, err);
	}
	opts_free_struct(rows, &b);
	return r;
}
