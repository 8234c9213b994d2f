/* state/: streams that somebody has damaged, or made up. None of them is believed. */
#include "tests/unit/state/test_state_int.h"

static void test_truncated_everywhere(void **state)
{
	struct dev_state a, b;
	size_t len;
	uint8_t *data;

	dev_state_fill(&a);
	data = stream_of(&a, &len);
	for (size_t cut = 0; cut < len; cut++) {
		struct err err = {0};
		uint8_t *copy = bytes_copy(data, cut);

		assert_int_equal(stream_load(copy, cut, &b, &err), -EINVAL);
		assert_true(err.msg[0]);
		if (cut >= STATE_CRC_SIZE) {
			stream_fix_crc(copy, cut);
			assert_int_equal(stream_load(copy, cut, &b, &err), -EINVAL);
		}
		free(copy);
	}
	free(data);
}

/* The section of a stream cut short at every byte, framing and checksum right. */
static void test_truncated_payload(void **state)
{
	struct dev_state a, b;
	size_t len, head = 16 + 16 + 3 + 2, payload;
	uint8_t *data;

	dev_state_fill(&a);
	data = stream_of(&a, &len);
	payload = len - head - 16 - STATE_CRC_SIZE;
	for (size_t cut = 0; cut <= payload; cut++) {
		static struct raw r;
		struct err err = {0};
		uint8_t *copy;

		raw_start(&r);
		raw_section(&r, STATE_KIND_FIELDS, "dev", "d0", data + head, cut, cut);
		raw_end(&r);
		copy = bytes_copy(r.data, r.len);
		assert_int_equal(stream_load(copy, r.len, &b, &err),
				 cut == payload ? 0 : -EINVAL);
		assert_int_equal(!err.msg[0], cut == payload);
		free(copy);
	}
	free(data);
}

static void test_flipped_without_crc(void **state)
{
	struct dev_state a, b;
	size_t len;
	uint8_t *data;

	dev_state_fill(&a);
	data = stream_of(&a, &len);
	for (size_t i = 0; i < len * 8; i++) {
		data[i / 8] ^= (uint8_t)(1 << (i % 8));
		assert_int_equal(stream_load(data, len, &b, NULL), -EINVAL);
		data[i / 8] ^= (uint8_t)(1 << (i % 8));
	}
	assert_int_equal(stream_load(data, len, &b, NULL), 0);
	free(data);
}

/* With a right checksum a damaged stream may well load; then the structure is sound and saves
 * to the very same bytes, so nothing in the stream was overlooked. */
static void flip_and_load(uint8_t *data, size_t len, size_t at, uint8_t mask, unsigned *loaded,
			  unsigned *refused)
{
	struct dev_state b;
	size_t again_len;
	uint8_t *again;
	int rc;

	data[at] ^= mask;
	stream_fix_crc(data, len);
	rc = stream_load(data, len, &b, NULL);
	if (rc) {
		assert_true(rc == -EINVAL || rc == -ENOENT);
		++*refused;
	} else {
		dev_state_assert_sound(&b);
		again = stream_of(&b, &again_len);
		assert_int_equal(len, again_len);
		assert_memory_equal(data, again, len);
		free(again);
		++*loaded;
	}
	data[at] ^= mask;
}

static void test_flipped_with_crc(void **state)
{
	unsigned loaded = 0, refused = 0;
	struct dev_state a;
	size_t len;
	uint8_t *data;

	dev_state_fill(&a);
	data = stream_of(&a, &len);
	for (size_t at = 0; at < len - STATE_CRC_SIZE; at++) {
		for (int bit = 0; bit < 8; bit++) {
			flip_and_load(data, len, at, (uint8_t)(1 << bit), &loaded, &refused);
		}
		flip_and_load(data, len, at, 0xff, &loaded, &refused);
	}
	assert_true(loaded > 8 * 50);	/* the values of 100 bytes or so */
	assert_true(refused > 8 * 300); /* names, types, lengths, bounds */
	free(data);
}

/* Every 16-, 32- and 64-bit place set to the values that break arithmetic. */
static void test_huge_lengths(void **state)
{
	static const uint64_t values[] = {
		UINT64_MAX,	   UINT64_MAX - 7,    UINT64_MAX - 40, INT64_MAX,
		UINT64_C(1) << 63, UINT64_C(1) << 32, UINT32_MAX,      INT32_MAX,
		UINT32_C(1) << 31, UINT16_MAX,	      0x8000,	       0,
	};
	static const size_t widths[] = {2, 4, 8};
	struct dev_state a, b;
	size_t len;
	uint8_t *data, *copy;

	dev_state_fill(&a);
	data = stream_of(&a, &len);
	copy = bytes_copy(data, len);
	for (size_t w = 0; w < ARRAY_SIZE(widths); w++) {
		for (size_t at = 0; at + widths[w] + STATE_CRC_SIZE <= len; at++) {
			for (size_t v = 0; v < ARRAY_SIZE(values); v++) {
				memcpy(copy, data, len);
				memcpy(copy + at, &values[v], widths[w]);
				stream_fix_crc(copy, len);
				if (stream_load(copy, len, &b, NULL) == 0) {
					dev_state_assert_sound(&b);
				}
			}
		}
	}
	free(copy);
	free(data);
}

static int raw_load(struct raw *r, struct dev_state *b, struct err *err)
{
	uint8_t *copy;
	int rc;

	raw_end(r);
	copy = bytes_copy(r->data, r->len);
	err->msg[0] = '\0';
	rc = stream_load(copy, r->len, b, err);
	free(copy);
	return rc;
}

static void test_section_claims_too_much(void **state)
{
	static const uint64_t claims[] = {1,	     21, 22, 1000, UINT32_MAX, UINT64_MAX - 20,
					  UINT64_MAX};
	static struct raw r;
	struct dev_state b;
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(claims); i++) {
		raw_start(&r);
		raw_section(&r, STATE_KIND_BLOB, "ram", "low", "", 0, claims[i]);
		assert_int_equal(raw_load(&r, &b, &err), -EINVAL);
	}
}

static void test_duplicate_sections(void **state)
{
	static struct raw r;
	struct state_in *in;
	struct err err = {0};

	raw_start(&r);
	raw_section(&r, STATE_KIND_BLOB, "ram", "low", "x", 1, 1);
	raw_section(&r, STATE_KIND_BLOB, "ram", "high", "x", 1, 1);
	raw_section(&r, STATE_KIND_FIELDS, "ram", "low", "x", 1, 1);
	raw_end(&r);
	assert_int_equal(state_in_open(&in, r.data, r.len, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "ram 'low' is there twice"));

	/* the same letters, divided otherwise, are two sections */
	raw_start(&r);
	raw_section(&r, STATE_KIND_BLOB, "ram", "low", "x", 1, 1);
	raw_section(&r, STATE_KIND_BLOB, "raml", "ow", "x", 1, 1);
	raw_end(&r);
	assert_int_equal(state_in_open(&in, r.data, r.len, &err), 0);
	state_in_free(in);
}

static void test_framing(void **state)
{
	static struct raw r;
	struct state_in *in;
	struct err err = {0};
	struct {
		const char *what;
		size_t at;
		uint8_t value;
	} bad[] = {
		{"no saved state", 0, 'X'},
		{"format", 8, 2},
		{"format", 12, 1},
		{"kind", 16, 3},
		{"kind", 16, 255},
		{"kind", 20, 1},
		{"name", 17, 0},
		{"name", 32, '\n'},
		{"name", 32, 0x7f},
		{"name", 35, 0},
		{"number of", 16 + 16 + 6 + 1 + 8, 2},
		{"number of", 16 + 16 + 6 + 1 + 15, 1},
		{"end mark", 16 + 16 + 6 + 1 + 1, 1},
		{"end mark", 16 + 16 + 6 + 1 + 2, 1},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		raw_start(&r);
		raw_section(&r, STATE_KIND_BLOB, "ram", "low", "x", 1, 1);
		raw_end(&r);
		r.data[bad[i].at] = bad[i].value;
		stream_fix_crc(r.data, r.len);
		assert_int_equal(state_in_open(&in, r.data, r.len, &err), -EINVAL);
		assert_non_null(strstr(err.msg, bad[i].what));
	}
	/* bytes behind the end, and a checksum that is not the last thing */
	raw_start(&r);
	raw_end(&r);
	raw_u32(&r, 0);
	stream_fix_crc(r.data, r.len);
	assert_int_equal(state_in_open(&in, r.data, r.len, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "not at the end"));
	/* only the checksum is wrong */
	raw_start(&r);
	raw_end(&r);
	r.data[r.len - 1] ^= 1;
	assert_int_equal(state_in_open(&in, r.data, r.len, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "checksum"));
	assert_int_equal(state_in_open(&in, r.data, 0, &err), -EINVAL);
}

static void test_too_many_sections(void **state)
{
	size_t cap = (size_t)(STATE_SECTIONS_MAX + 1) * 32 + 64, len = 0;
	struct state_wire_section head = {
		.kind = STATE_KIND_BLOB, .name_len = 1, .instance_len = le16_of(6)};
	uint8_t *data = calloc(1, cap);
	struct state_in *in;
	struct err err = {0};

	assert_non_null(data);
	for (unsigned n = STATE_SECTIONS_MAX; n <= STATE_SECTIONS_MAX + 1; n++) {
		struct state_wire_section end = {.len = le64_of(n)};

		memcpy(data, "NEMUSTAT\1\0\0\0\0\0\0\0", 16);
		len = 16;
		for (unsigned i = 0; i < n; i++) {
			char name[24];

			memcpy(data + len, &head, sizeof(head));
			len += sizeof(head);
			snprintf(name, sizeof(name), "r%06u", i);
			memcpy(data + len, name, 7);
			len += 7;
		}
		memcpy(data + len, &end, sizeof(end));
		len += sizeof(end) + STATE_CRC_SIZE;
		assert_true(len <= cap);
		stream_fix_crc(data, len);
		if (n == STATE_SECTIONS_MAX) {
			const void *blob;
			uint64_t blob_len;

			assert_int_equal(state_in_open(&in, data, len, &err), 0);
			assert_int_equal(
				state_get_blob(in, "r", "065535", &blob, &blob_len, &err), 0);
			state_in_free(in);
		} else {
			assert_int_equal(state_in_open(&in, data, len, &err), -EINVAL);
			assert_non_null(strstr(err.msg, "too many"));
		}
	}
	free(data);
}

/* --- records written by hand --- */

static void raw_ring(struct raw *r, uint32_t version, uint64_t size)
{
	raw_record(r, version, 3);
	raw_scalar(r, STATE_WIRE_U16, "size", size, 2);
	raw_scalar(r, STATE_WIRE_BOOL, "ready", 0, 1);
	raw_scalar(r, STATE_WIRE_U64, "desc", 0, 8);
}

enum { RING_LEN = 6 + 3 * 8 + 4 + 5 + 4 + 2 + 1 + 8 };

static void raw_rings(struct raw *r, const char *name, uint32_t claim, uint32_t n,
		      int32_t extra)
{
	static struct raw v;

	v.len = 0;
	raw_u32(&v, claim);
	for (uint32_t i = 0; i < n; i++) {
		raw_u32(&v, (uint32_t)RING_LEN + (uint32_t)extra);
		raw_ring(&v, 1, i);
	}
	raw_field(r, STATE_WIRE_ARRAY, name, v.data, (uint32_t)v.len);
}

/* What deviates from a right record. */
struct twist {
	uint32_t version;	/* 0: 3 */
	int nfields;		/* added to the right number */
	const char *skip;	/* this field is left out */
	const char *rename;	/* this field has another name */
	const char *twice;	/* this field comes twice */
	const char *retype;	/* this field has the type U32 */
	const char *only_value; /* this scalar has `value` */
	uint64_t value;
	uint32_t fifo;		   /* bytes more than 4 */
	int mac;		   /* bytes more or less than 6 */
	uint32_t ring_claim, ring; /* more elements than 2: as claimed, as there */
	uint32_t req_claim, req;   /* more elements than 1 */
	int32_t element;	   /* added to the length of each element */
	uint32_t ctrl_version;	   /* 0: 1 */
	uint32_t ctrl_size;
	bool reverse;  /* a few fields in another order */
	unsigned junk; /* bytes behind the record */
};

static bool is(const char *a, const char *b)
{
	return a && strcmp(a, b) == 0;
}

static void twist_scalar(struct raw *r, const struct twist *t, uint8_t type, const char *name,
			 uint64_t v, uint32_t size)
{
	if (is(t->skip, name)) {
		return;
	}
	if (is(t->only_value, name)) {
		v = t->value;
	}
	raw_scalar(r, is(t->retype, name) ? STATE_WIRE_U32 : type,
		   is(t->rename, name) ? "other" : name, v, size);
	if (is(t->twice, name)) {
		raw_scalar(r, type, name, v, size);
	}
}

static int twist_load(const struct twist *t, struct dev_state *b, struct err *err)
{
	static const uint8_t zeros[1024];
	static struct raw p, v, r;
	uint32_t version = t->version ? t->version : 3;
	bool added = version >= 3;

	p.len = 0;
	raw_record(&p, version, (uint16_t)(10 + added + t->nfields));
	if (!t->reverse) {
		twist_scalar(&p, t, STATE_WIRE_U8, "status", 1, 1);
	}
	twist_scalar(&p, t, STATE_WIRE_U16, "vector", 2, 2);
	twist_scalar(&p, t, STATE_WIRE_U32, "features", 3, 4);
	twist_scalar(&p, t, STATE_WIRE_U64, "offset", 4, 8);
	twist_scalar(&p, t, STATE_WIRE_BOOL, "broken", 1, 1);
	raw_field(&p, STATE_WIRE_BYTES, "mac", zeros, (uint32_t)(6 + t->mac));
	raw_field(&p, STATE_WIRE_BUF, "fifo", zeros, 4 + t->fifo);
	v.len = 0;
	raw_ring(&v, t->ctrl_version ? t->ctrl_version : 1, t->ctrl_size);
	raw_field(&p, STATE_WIRE_STRUCT, "ctrl", v.data, (uint32_t)v.len);
	raw_rings(&p, "ring", 2 + t->ring_claim, 2 + t->ring, t->element);
	raw_rings(&p, "req", 1 + t->req_claim, 1 + t->req, t->element);
	if (added) {
		twist_scalar(&p, t, STATE_WIRE_U32, "added", 5, 4);
	}
	if (t->reverse) {
		twist_scalar(&p, t, STATE_WIRE_U8, "status", 1, 1);
	}
	raw_put(&p, zeros, t->junk);
	raw_start(&r);
	raw_section(&r, STATE_KIND_FIELDS, "dev", "d0", p.data, p.len, p.len);
	return raw_load(&r, b, err);
}

static void twist_refused(const struct twist *t, const char *part)
{
	struct dev_state b, zero;
	struct err err;
	int rc = twist_load(t, &b, &err);

	if (rc != -EINVAL || !strstr(err.msg, part)) {
		print_error("wanted '%s', got %d '%s'\n", part, rc, err.msg);
	}
	assert_int_equal(rc, -EINVAL);
	assert_non_null(strstr(err.msg, part));
	assert_non_null(strstr(err.msg, "dev 'd0'"));
	memset(&zero, 0, sizeof(zero));
	assert_memory_equal(&b, &zero, sizeof(b));
}

static void test_right_records(void **state)
{
	struct dev_state b;
	struct err err;

	assert_int_equal(twist_load(&(struct twist){0}, &b, &err), 0);
	assert_int_equal(b.added, 5);
	assert_int_equal(b.nreq, 1);
	assert_int_equal(b.ring[1].size, 1);
	assert_int_equal(twist_load(&(struct twist){.reverse = true}, &b, &err), 0);
	assert_int_equal(b.status, 1);
	assert_int_equal(twist_load(&(struct twist){.fifo = 12}, &b, &err), 0);
	assert_int_equal(b.fifo_len, 16);
	assert_int_equal(twist_load(&(struct twist){.req_claim = 3, .req = 3}, &b, &err), 0);
	assert_int_equal(b.nreq, 4);
	assert_int_equal(b.req[3].size, 3);
}

static void test_versions(void **state)
{
	struct dev_state b;
	struct err err;

	/* an older stream: the newer field is zero, whatever its bounds */
	assert_int_equal(twist_load(&(struct twist){.version = 2}, &b, &err), 0);
	assert_int_equal(b.added, 0);
	assert_int_equal(b.vector, 2);
	twist_refused(&(struct twist){.version = 1}, "version 1");
	twist_refused(&(struct twist){.version = 4}, "version 4");
	twist_refused(&(struct twist){.version = UINT32_MAX}, "version 4294967295");
	twist_refused(&(struct twist){.ctrl_version = 2}, "ctrl: ring: version 2");
	/* what this version must have */
	twist_refused(&(struct twist){.skip = "added", .nfields = -1}, "added: missing");
	/* and what that version cannot have */
	twist_refused(&(struct twist){.version = 2, .rename = "status", .nfields = 0},
		      "'other'");
}

static void test_field_of_a_later_version(void **state)
{
	static struct raw p, r;
	struct dev_state b;
	struct err err;

	p.len = 0;
	raw_record(&p, 2, 1);
	raw_scalar(&p, STATE_WIRE_U32, "added", 5, 4);
	raw_start(&r);
	raw_section(&r, STATE_KIND_FIELDS, "dev", "d0", p.data, p.len, p.len);
	assert_int_equal(raw_load(&r, &b, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "added: not in version 2"));
}

static void test_bad_fields(void **state)
{
	static const char *const scalars[] = {"status", "vector", "features", "offset",
					      "broken"};

	for (size_t i = 0; i < ARRAY_SIZE(scalars); i++) {
		char text[64];

		snprintf(text, sizeof(text), "%s: missing", scalars[i]);
		twist_refused(&(struct twist){.skip = scalars[i], .nfields = -1}, text);
		twist_refused(&(struct twist){.rename = scalars[i]}, "no field 'other'");
		snprintf(text, sizeof(text), "%s: given twice", scalars[i]);
		twist_refused(
			&(struct twist){
				.twice = scalars[i], .skip = NULL, .version = 2, .nfields = 1},
			text);
	}
	twist_refused(&(struct twist){.retype = "status"}, "status: type 3, 1 expected");
	twist_refused(&(struct twist){.nfields = 1}, "12 fields, there are 11");
	twist_refused(&(struct twist){.nfields = -1}, "bytes too many");
	twist_refused(&(struct twist){.junk = 1}, "1 bytes too many");
	twist_refused(&(struct twist){.junk = 100}, "100 bytes too many");
	twist_refused(&(struct twist){.mac = -1}, "mac: 5 bytes, 6 expected");
	twist_refused(&(struct twist){.mac = 1}, "mac: 7 bytes, 6 expected");
}

static void test_bounds(void **state)
{
	struct dev_state b;
	struct err err;

	twist_refused(&(struct twist){.only_value = "vector", .value = 0},
		      "vector: 0 is outside");
	twist_refused(&(struct twist){.only_value = "vector", .value = 1025}, "vector: 1025");
	twist_refused(&(struct twist){.only_value = "added", .value = 4}, "added: 4");
	twist_refused(&(struct twist){.only_value = "added", .value = 10}, "added: 10");
	twist_refused(&(struct twist){.only_value = "broken", .value = 2}, "broken: 2");
	twist_refused(&(struct twist){.only_value = "broken", .value = 255}, "broken: 255");
	assert_int_equal(
		twist_load(&(struct twist){.only_value = "vector", .value = 1024}, &b, &err),
		0);
	assert_int_equal(twist_load(&(struct twist){.ctrl_size = 32768}, &b, &err), 0);
	twist_refused(&(struct twist){.ctrl_size = 32769}, "ctrl: size: 32769");
}

static void test_counters(void **state)
{
	twist_refused(&(struct twist){.fifo = 13}, "fifo: 17 given, but there is room for 16");
	twist_refused(&(struct twist){.fifo = 1000}, "fifo: 1004 given");
	twist_refused(&(struct twist){.req_claim = 4, .req = 4}, "req: 5 given");
	twist_refused(&(struct twist){.req_claim = UINT32_MAX - 1}, "req: 4294967295 given");
	twist_refused(&(struct twist){.req_claim = 1}, "req: the data ends");
	twist_refused(&(struct twist){.req = 1}, "req: 58 bytes too many");
	twist_refused(&(struct twist){.ring_claim = UINT32_MAX}, "ring: 1 given, 2 expected");
	twist_refused(&(struct twist){.ring_claim = 1, .ring = 1}, "ring: 3 given");
	twist_refused(&(struct twist){.element = 1}, "ring");
	twist_refused(&(struct twist){.element = -1}, "ring[0]");
	twist_refused(&(struct twist){.element = INT32_MAX}, "ring");
	twist_refused(&(struct twist){.element = -RING_LEN}, "ring[0]");
}

/* Random damage, many bytes at a time; a fixed seed, so a failure repeats. */
static void test_random_damage(void **state)
{
	uint64_t seed = UINT64_C(0x9e3779b97f4a7c15);
	struct dev_state a, b;
	size_t len;
	uint8_t *data, *copy;

	dev_state_fill(&a);
	data = stream_of(&a, &len);
	copy = bytes_copy(data, len);
	for (int run = 0; run < 20000; run++) {
		unsigned n;

		memcpy(copy, data, len);
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		n = 1 + (seed >> 60);
		for (unsigned i = 0; i < n; i++) {
			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			copy[seed % (len - STATE_CRC_SIZE)] = (uint8_t)(seed >> 40);
		}
		stream_fix_crc(copy, len);
		if (stream_load(copy, len, &b, NULL) == 0) {
			dev_state_assert_sound(&b);
		}
	}
	free(copy);
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_truncated_everywhere),
		cmocka_unit_test(test_truncated_payload),
		cmocka_unit_test(test_flipped_without_crc),
		cmocka_unit_test(test_flipped_with_crc),
		cmocka_unit_test(test_huge_lengths),
		cmocka_unit_test(test_section_claims_too_much),
		cmocka_unit_test(test_duplicate_sections),
		cmocka_unit_test(test_framing),
		cmocka_unit_test(test_too_many_sections),
		cmocka_unit_test(test_right_records),
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_field_of_a_later_version),
		cmocka_unit_test(test_bad_fields),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_counters),
		cmocka_unit_test(test_random_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
