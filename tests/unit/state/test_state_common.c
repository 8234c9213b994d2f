/* What the tests of state/ share (test_state_int.h). */
#include "tests/unit/state/test_state_int.h"

static int ring_validate(const void *p, struct err *err)
{
	const struct ring_state *st = p;

	if (st->ready && !st->size) {
		return err_set(err, EINVAL, "a ready ring has no entries");
	}
	return 0;
}

static const struct state_field ring_fields[] = {
	STATE_F_RANGE(STATE_U16, struct ring_state, size, 0, 32768),
	STATE_F_BOOL(struct ring_state, ready),
	STATE_F_U64(struct ring_state, desc),
	STATE_F_END,
};
const struct state_desc ring_desc = {
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
	 .min = 5,
	 .max = 9,
	 .count_offset = -1,
	 .since = 3},
	STATE_F_END,
};
const struct state_desc dev_desc = {
	.name = "dev",
	.version = 3,
	.min_version = 2,
	.size = sizeof(struct dev_state),
	.fields = dev_fields,
};

void dev_state_fill(struct dev_state *st)
{
	memset(st, 0, sizeof(*st)); /* padding, too: the tests compare bytes */
	st->status = 0x0f;
	st->vector = 7;
	st->features = 0x10000020;
	st->offset = UINT64_C(0x123456789abcdef0);
	st->broken = true;
	memcpy(st->mac, "\x52\x54\x00\x12\x34\x56", 6);
	st->fifo_len = 5;
	memcpy(st->fifo, "hello", 5);
	st->ctrl = (struct ring_state){64, true, 0x1000};
	st->ring[0] = (struct ring_state){256, true, 0x2000};
	st->ring[1] = (struct ring_state){32768, false, UINT64_MAX};
	st->nreq = 3;
	st->req[0] = (struct ring_state){1, true, 0x3000};
	st->req[2] = (struct ring_state){2, true, 0x4000};
	st->added = 6;
}

static bool ring_equal(const struct ring_state *a, const struct ring_state *b)
{
	return a->size == b->size && a->ready == b->ready && a->desc == b->desc;
}

bool dev_state_equal(const struct dev_state *a, const struct dev_state *b)
{
	bool same =
		a->status == b->status && a->vector == b->vector &&
		a->features == b->features && a->offset == b->offset &&
		a->broken == b->broken && memcmp(a->mac, b->mac, sizeof(a->mac)) == 0 &&
		a->fifo_len == b->fifo_len && memcmp(a->fifo, b->fifo, sizeof(a->fifo)) == 0 &&
		ring_equal(&a->ctrl, &b->ctrl) && a->nreq == b->nreq && a->added == b->added;

	for (size_t i = 0; i < ARRAY_SIZE(a->ring); i++) {
		same = same && ring_equal(&a->ring[i], &b->ring[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(a->req); i++) {
		same = same && ring_equal(&a->req[i], &b->req[i]);
	}
	return same;
}

static void ring_assert_sound(const struct ring_state *st)
{
	assert_true(st->size <= 32768);
	assert_true(!st->ready || st->size);
}

void dev_state_assert_sound(const struct dev_state *st)
{
	uint8_t flag;

	memcpy(&flag, &st->broken, 1);
	assert_true(flag <= 1);
	assert_in_range(st->vector, 1, 1024);
	assert_true(st->fifo_len <= sizeof(st->fifo));
	assert_true(st->nreq <= ARRAY_SIZE(st->req));
	assert_true(st->added == 0 || (st->added >= 5 && st->added <= 9));
	ring_assert_sound(&st->ctrl);
	for (size_t i = 0; i < ARRAY_SIZE(st->ring); i++) {
		ring_assert_sound(&st->ring[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(st->req); i++) {
		ring_assert_sound(&st->req[i]);
	}
}

uint8_t *bytes_copy(const void *data, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	assert_non_null(copy);
	memcpy(copy, data, len);
	return copy;
}

uint8_t *stream_of(const struct dev_state *st, size_t *len)
{
	struct state_out *o;
	const void *data;
	uint8_t *copy;

	assert_int_equal(state_out_new(&o), 0);
	assert_int_equal(state_put(o, &dev_desc, "d0", st), 0);
	assert_int_equal(state_out_finish(o, &data, len), 0);
	copy = bytes_copy(data, *len);
	state_out_free(o);
	return copy;
}

void stream_fix_crc(uint8_t *data, size_t len)
{
	struct crc32c crc;
	uint32_t v;

	crc32c_init(&crc);
	v = crc32c_update(&crc, 0, data, len - STATE_CRC_SIZE);
	memcpy(data + len - STATE_CRC_SIZE, &v, sizeof(v));
}

int stream_load(const uint8_t *data, size_t len, struct dev_state *st, struct err *err)
{
	struct state_in *in;
	int rc = state_in_open(&in, data, len, err);

	if (!rc) {
		memset(st, 0xa5, sizeof(*st));
		rc = state_get(in, &dev_desc, "d0", st, err);
		state_in_free(in);
	}
	return rc;
}

void raw_put(struct raw *r, const void *data, size_t len)
{
	assert_true(len <= sizeof(r->data) - r->len);
	if (len) {
		memcpy(r->data + r->len, data, len);
		r->len += len;
	}
}

void raw_u8(struct raw *r, uint8_t v)
{
	raw_put(r, &v, sizeof(v));
}

void raw_u16(struct raw *r, uint16_t v)
{
	raw_put(r, &v, sizeof(v));
}

void raw_u32(struct raw *r, uint32_t v)
{
	raw_put(r, &v, sizeof(v));
}

void raw_u64(struct raw *r, uint64_t v)
{
	raw_put(r, &v, sizeof(v));
}

void raw_start(struct raw *r)
{
	r->len = 0;
	r->nsections = 0;
	raw_put(r, "NEMUSTAT", 8);
	raw_u32(r, 1);
	raw_u32(r, 0);
}

void raw_section(struct raw *r, uint8_t kind, const char *name, const char *instance,
		 const void *payload, size_t len, uint64_t claim)
{
	raw_u8(r, kind);
	raw_u8(r, (uint8_t)strlen(name));
	raw_u16(r, (uint16_t)strlen(instance));
	raw_u32(r, 0);
	raw_u64(r, claim);
	raw_put(r, name, strlen(name));
	raw_put(r, instance, strlen(instance));
	raw_put(r, payload, len);
	r->nsections++;
}

void raw_end(struct raw *r)
{
	raw_u64(r, 0);
	raw_u64(r, r->nsections);
	raw_u32(r, 0);
	stream_fix_crc(r->data, r->len);
}

void raw_record(struct raw *r, uint32_t version, uint16_t nfields)
{
	raw_u32(r, version);
	raw_u16(r, nfields);
}

void raw_field(struct raw *r, uint8_t type, const char *name, const void *value, uint32_t len)
{
	raw_u8(r, type);
	raw_u8(r, (uint8_t)strlen(name));
	raw_u16(r, 0);
	raw_u32(r, len);
	raw_put(r, name, strlen(name));
	raw_put(r, value, len);
}

void raw_scalar(struct raw *r, uint8_t type, const char *name, uint64_t v, uint32_t size)
{
	raw_field(r, type, name, &v, size);
}
