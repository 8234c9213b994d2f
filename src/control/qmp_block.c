/*
 * QMP commands about disks: block_resize, block_set_io_throttle, blockdev-reopen, with the names and
 * arguments of QEMU's schemas. Control loop.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/opts.h"
#include "block/throttle.h"
#include "control/qmp_int.h"

static const char *string_arg(const struct qmp_request *rq, const char *name)
{
	return json_string_value(json_object_get(rq->args, name));
}

int qmp_block_resize(struct qmp_server *s, struct qmp_request *rq, json_t **ret, struct err *err)
{
	json_int_t size = json_integer_value(json_object_get(rq->args, "size"));

	(void)ret;
	if (size <= 0) {
		return err_set(err, EINVAL, "Parameter 'size' expects a positive number");
	}
	return machine_block_resize(s->m, string_arg(rq, "device"), string_arg(rq, "node-name"),
				    (uint64_t)size, err);
}

static int limit_arg(const struct qmp_request *rq, const char *name, const char *suffix,
		     uint64_t *out, struct err *err)
{
	char key[32];
	const json_t *v;

	snprintf(key, sizeof(key), "%s%s", name, suffix);
	v = json_object_get(rq->args, key);
	if (!v) {
		return 0;
	}
	if (json_integer_value(v) < 0) {
		return err_set(err, EINVAL, "Parameter '%s' expects a number that is not negative",
			       key);
	}
	*out = (uint64_t)json_integer_value(v);
	return 0;
}

int qmp_block_set_io_throttle(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
			      struct err *err)
{
	static const char *const names[BLK_LIMITS] = {
		[BLK_BPS_TOTAL] = "bps",   [BLK_BPS_READ] = "bps_rd",   [BLK_BPS_WRITE] = "bps_wr",
		[BLK_IOPS_TOTAL] = "iops", [BLK_IOPS_READ] = "iops_rd", [BLK_IOPS_WRITE] = "iops_wr",
	};
	const char *drive = string_arg(rq, "device");
	struct blk_limits l = {.iops_size = 0};
	int r = 0;

	(void)ret;
	for (unsigned i = 0; i < BLK_LIMITS && !r; i++) {
		l.limit[i].length = 1;
		r = limit_arg(rq, names[i], "", &l.limit[i].avg, err);
		r = r ? r : limit_arg(rq, names[i], "_max", &l.limit[i].max, err);
		r = r ? r : limit_arg(rq, names[i], "_max_length", &l.limit[i].length, err);
	}
	r = r ? r : limit_arg(rq, "iops_size", "", &l.iops_size, err);
	if (!r && !drive) {
		r = err_set(err, EINVAL, "Parameter 'device' is missing");
	}
	return r ? r : machine_block_throttle(s->m, drive, &l, err);
}

static void reopen_done(void *opaque, const struct err *err)
{
	qmp_reply(opaque, NULL, err);
}

int qmp_blockdev_reopen(struct qmp_server *s, struct qmp_request *rq, json_t **ret, struct err *err)
{
	const json_t *list = json_object_get(rq->args, "options"), *one = json_array_get(list, 0);
	struct opts o = {.what = "blockdev-reopen"};
	char *text;
	int r;

	(void)ret;
	if (json_array_size(list) != 1 || !json_is_object(one)) {
		return err_set(err, EINVAL, "Parameter 'options' expects a list of one object: nodes are "
			       "reopened one by one");
	}
	text = json_dumps(one, JSON_COMPACT);
	r = text ? opts_add_json(&o, text, true, err) : err_set(err, ENOMEM, "out of memory");
	free(text);
	r = r ? r : machine_block_reopen(s->m, &o, reopen_done, rq, err);
	opts_fini(&o);
	return r ? r : QMP_LATER;
}
