/*
 * Saved state from anybody: the whole input is a stream whose checksum is put right, so that the
 * fuzzer gets past it. What decodes must be within its bounds and survive encode and decode.
 *
 * #covers: src/state/decode.c src/state/stream.c
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "state/state_int.h"

struct ring_state {
	uint16_t size;
	bool ready;
	uint64_t desc;
};
struct dev_state {
	uint8_t status;
	uint16_t vector;
	uint32_t features;
	uint64_t offset;
	bool broken;
	uint8_t mac[6];
	uint32_t fifo_len;
	uint8_t fifo[16];
	struct ring_state ctrl;
	struct ring_state ring[2];
	uint32_t nreq;
	struct ring_state req[4];
	uint32_t added;
};

static int ring_validate(const void *p, struct err *err)
{
	const struct ring_state *st = p;

	return st->ready && !st->size ? err_set(err, EINVAL, "a ready ring is empty") : 0;
}

static const struct state_field ring_fields[] = {
	STATE_F_RANGE(STATE_U16, struct ring_state, size, 0, 32768),
	STATE_F_BOOL(struct ring_state, ready),
	STATE_F_U64(struct ring_state, desc),
	STATE_F_END,
};
static const struct state_desc ring_desc = {
	.name = "ring",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct ring_state),
	.fields = ring_fields,
	.validate = ring_validate,
};
static const struct state_field dev_fields[] = {
	STATE_F_U8(struct dev_state, status),
	STATE_F_RANGE(STATE_U16, struct dev_state, vector, 1, 1024),
	STATE_F_U32(struct dev_state, features),
	STATE_F_U64(struct dev_state, offset),
	STATE_F_BOOL(struct dev_state, broken),
	STATE_F_BYTES(struct dev_state, mac),
	STATE_F_BUF(struct dev_state, fifo, fifo_len),
	STATE_F_STRUCT(struct dev_state, ctrl, &ring_desc),
	STATE_F_ARRAY(struct dev_state, ring, &ring_desc),
	STATE_F_VARRAY(struct dev_state, req, &ring_desc, nreq),
	{.name = "added",
	 .type = STATE_U32,
	 .offset = offsetof(struct dev_state, added),
	 .size = 4,
	 .count_offset = -1,
	 .since = 3},
	STATE_F_END,
};
static const struct state_desc dev_desc = {
	.name = "dev",
	.version = 3,
	.min_version = 2,
	.size = sizeof(struct dev_state),
	.fields = dev_fields,
};

static void require(bool good)
{
	if (!good) {
		abort();
	}
}

static void check_decoded(const struct dev_state *st)
{
	struct dev_state again;
	struct state_out *o;
	struct state_in *in;
	const void *data;
	size_t len;

	require(st->vector >= 1 && st->vector <= 1024);
	require(st->fifo_len <= sizeof(st->fifo));
	require(st->nreq <= ARRAY_SIZE(st->req));
	require(!st->ctrl.ready || st->ctrl.size);
	require(state_out_new(&o) == 0);
	require(state_put(o, &dev_desc, "d0", st) == 0);
	require(state_out_finish(o, &data, &len) == 0);
	require(state_in_open(&in, data, len, NULL) == 0);
	require(state_get(in, &dev_desc, "d0", &again, NULL) == 0);
	require(memcmp(st, &again, sizeof(again)) == 0);
	state_in_free(in);
	state_out_free(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
	uint8_t *data = malloc(len + STATE_CRC_SIZE);
	struct err err = {0};
	struct dev_state st;
	struct state_in *in;
	struct crc32c crc;
	const void *blob;
	uint64_t blob_len;
	uint32_t v;

	require(data != NULL);
	if (len) {
		memcpy(data, input, len);
	}
	crc32c_init(&crc);
	v = crc32c_update(&crc, 0, data, len);
	memcpy(data + len, &v, sizeof(v));
	if (state_in_open(&in, data, len + STATE_CRC_SIZE, &err) == 0) {
		if (state_get(in, &dev_desc, "d0", &st, &err) == 0) {
			check_decoded(&st);
			require(state_get(in, &dev_desc, "d0", &st, NULL) == -EEXIST);
		}
		if (state_get_blob(in, "ram", "low", &blob, &blob_len, &err) == 0) {
			require(range_within((uintptr_t)blob - (uintptr_t)data, blob_len, len));
		}
		state_in_check_used(in, &err);
		state_in_free(in);
	}
	free(data);
	return 0;
}
