/*
 * Sections in a stream (state_int.h has the format).
 *
 * Writing: one growing buffer; a section that fails is taken back whole. Reading: a view of a
 * whole buffer, which the caller keeps until state_in_free(). state_in_open() walks all framing
 * before anything is used, so later reads need no length check of their own:
 *   1. every section lies inside the buffer, the end mark is its last 20 bytes
 *   2. names are printable and unique by (name, instance)
 *   3. the CRC is right
 * The only allocation is an index, 48 bytes a section, at most STATE_SECTIONS_MAX of them.
 * Whoever owns the struct; no locks.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "state/state_int.h"

struct state_out {
	struct state_buf buf;
	size_t *section; /* where each starts */
	unsigned nsections, section_cap;
	bool finished;
	struct crc32c crc;
};

struct state_section {
	const char *name, *instance;
	const uint8_t *data;
	uint64_t len;
	uint16_t instance_len;
	uint8_t name_len, kind;
	bool taken;
};

struct state_in {
	struct state_section *section; /* in the order of the stream */
	unsigned nsections;
	struct state_section **sorted;
};

/* --- writing --- */

int state_out_new(struct state_out **out)
{
	struct state_wire_head head = {.magic = STATE_MAGIC, .format = le32_of(STATE_FORMAT)};
	struct state_out *o = calloc(1, sizeof(*o));

	if (!o) {
		return -ENOMEM;
	}
	crc32c_init(&o->crc);
	if (state_buf_append(&o->buf, &head, sizeof(head))) {
		free(o);
		return -ENOMEM;
	}
	*out = o;
	return 0;
}

void state_out_free(struct state_out *o)
{
	if (!o) {
		return;
	}
	free(o->section);
	free(o->buf.data);
	free(o);
}

static bool state_out_has(const struct state_out *o, const char *name, const char *instance)
{
	size_t nlen = strlen(name), ilen = strlen(instance);

	for (unsigned i = 0; i < o->nsections; i++) {
		const uint8_t *at = o->buf.data + o->section[i];
		struct state_wire_section head;

		memcpy(&head, at, sizeof(head));
		if (head.name_len == nlen && le16_get(head.instance_len) == ilen &&
		    memcmp(at + sizeof(head), name, nlen) == 0 &&
		    memcmp(at + sizeof(head) + nlen, instance, ilen) == 0) {
			return true;
		}
	}
	return false;
}

/* Writes the head of a section; its length follows with state_section_end(). */
static int state_section_begin(struct state_out *o, uint8_t kind, const char *name,
			       const char *instance)
{
	size_t nlen = strlen(name), ilen = strlen(instance), start = o->buf.len;
	struct state_wire_section head = {.kind = kind, .name_len = (uint8_t)nlen};

	assert(!o->finished);
	if (!nlen || !state_name_ok(name, nlen, STATE_NAME_MAX) ||
	    !state_name_ok(instance, ilen, STATE_INSTANCE_MAX)) {
		log_err(name, "state: the instance name cannot be saved, use plain ASCII");
		return -EINVAL;
	}
	if (state_out_has(o, name, instance)) {
		log_err(name, "state: '%s' would be saved twice", instance);
		return -EEXIST;
	}
	if (o->nsections == STATE_SECTIONS_MAX) {
		return -E2BIG;
	}
	if (o->nsections == o->section_cap) {
		unsigned cap = o->section_cap ? o->section_cap * 2 : 64;
		size_t *grown = realloc(o->section, cap * sizeof(*grown));

		if (!grown) {
			return -ENOMEM;
		}
		o->section = grown;
		o->section_cap = cap;
	}
	head.instance_len = le16_of((uint16_t)ilen);
	if (state_buf_append(&o->buf, &head, sizeof(head)) ||
	    state_buf_append(&o->buf, name, nlen) ||
	    state_buf_append(&o->buf, instance, ilen)) {
		o->buf.len = start;
		return -ENOMEM;
	}
	o->section[o->nsections++] = start;
	return 0;
}

static int state_section_end(struct state_out *o, size_t start, int rc)
{
	size_t at = o->section[o->nsections - 1];
	le64 len = le64_of(o->buf.len - start);

	if (rc) {
		o->buf.len = at;
		o->nsections--;
		return rc;
	}
	memcpy(o->buf.data + at + offsetof(struct state_wire_section, len), &len, sizeof(len));
	return 0;
}

int state_put(struct state_out *o, const struct state_desc *d, const char *instance,
	      const void *st)
{
	struct err err = {0};
	size_t start;
	int rc;

	state_desc_check(d);
	rc = state_section_begin(o, STATE_KIND_FIELDS, d->name, instance);
	if (rc) {
		return rc;
	}
	start = o->buf.len;
	rc = state_record_encode(&o->buf, d, st, &err);
	if (rc) {
		log_err(d->name, "state of '%s' cannot be saved: %s", instance,
			err.msg[0] ? err.msg : strerror(-rc));
	}
	return state_section_end(o, start, rc);
}

int state_put_blob(struct state_out *o, const char *name, const char *instance,
		   const void *data, uint64_t len)
{
	size_t start;
	int rc = state_section_begin(o, STATE_KIND_BLOB, name, instance);

	if (rc) {
		return rc;
	}
	start = o->buf.len;
	rc = len > SIZE_MAX ? -ENOMEM : state_buf_append(&o->buf, data, len);
	return state_section_end(o, start, rc);
}

int state_out_finish(struct state_out *o, const void **data, size_t *len)
{
	struct state_wire_section end = {.kind = STATE_KIND_END, .len = le64_of(o->nsections)};
	size_t start = o->buf.len;
	le32 crc;

	if (!o->finished) {
		if (state_buf_append(&o->buf, &end, sizeof(end))) {
			return -ENOMEM;
		}
		crc = le32_of(crc32c_update(&o->crc, 0, o->buf.data, o->buf.len));
		if (state_buf_append(&o->buf, &crc, sizeof(crc))) {
			o->buf.len = start;
			return -ENOMEM;
		}
		o->finished = true;
	}
	*data = o->buf.data;
	*len = o->buf.len;
	return 0;
}

/* --- reading --- */

static int err_damaged(struct err *err, size_t at, const char *what)
{
	return err_set(err, EINVAL,
		       "saved state, byte %zu: %s; the file is damaged, save the state again",
		       at, what);
}

/* Reads the section head at *at and moves past the section; fills s if it is not NULL.
 * The end mark leaves *at behind its head and sets s->kind and s->len. */
static int state_section_read(const uint8_t *data, size_t len, size_t *at,
			      struct state_section *s, struct err *err)
{
	struct state_wire_section head;
	size_t pos = *at;

	if (!range_within(pos, sizeof(head), len)) {
		return err_damaged(err, pos, "it ends within a section head");
	}
	memcpy(&head, data + pos, sizeof(head));
	*s = (struct state_section){
		.kind = head.kind,
		.name_len = head.name_len,
		.instance_len = le16_get(head.instance_len),
		.len = le64_get(head.len),
	};
	if (head.kind > STATE_KIND_BLOB || le32_get(head.zero)) {
		return err_damaged(err, pos, "there is no such kind of section");
	}
	pos += sizeof(head);
	if (head.kind == STATE_KIND_END) {
		if (s->name_len || s->instance_len) {
			return err_damaged(err, *at, "the end mark is bad");
		}
		*at = pos;
		return 0;
	}
	if (!range_within(pos, (size_t)s->name_len + s->instance_len, len)) {
		return err_damaged(err, pos, "it ends within a name");
	}
	s->name = (const char *)data + pos;
	s->instance = s->name + s->name_len;
	pos += (size_t)s->name_len + s->instance_len;
	if (!s->name_len || !state_name_ok(s->name, s->name_len, STATE_NAME_MAX) ||
	    !state_name_ok(s->instance, s->instance_len, STATE_INSTANCE_MAX)) {
		return err_damaged(err, *at, "the name of a section is bad");
	}
	if (!range_within(pos, s->len, len)) {
		return err_damaged(err, pos, "it ends within a section");
	}
	s->data = data + pos;
	*at = pos + s->len;
	return 0;
}

/* Walks all sections. With index NULL it only counts. */
static int state_in_walk(const uint8_t *data, size_t len, struct state_section *index,
			 unsigned *count, struct err *err)
{
	size_t at = sizeof(struct state_wire_head);
	struct state_section s = {0};
	unsigned n = 0;

	for (;;) {
		int rc = state_section_read(data, len, &at, &s, err);

		if (rc) {
			return rc;
		}
		if (s.kind == STATE_KIND_END) {
			break;
		}
		if (n == STATE_SECTIONS_MAX) {
			return err_damaged(err, at, "there are too many sections");
		}
		if (index) {
			index[n] = s;
		}
		n++;
	}
	if (s.len != n) {
		return err_damaged(err, at, "the number of sections is wrong");
	}
	if (len - at != STATE_CRC_SIZE) {
		return err_damaged(err, at, "the end mark is not at the end");
	}
	*count = n;
	return 0;
}

static int bytes_cmp(const char *a, size_t alen, const char *b, size_t blen)
{
	int rc = memcmp(a, b, MIN(alen, blen));

	return rc ? rc : (alen > blen) - (alen < blen);
}

static int state_section_cmp(const void *pa, const void *pb)
{
	const struct state_section *a = *(struct state_section *const *)pa;
	const struct state_section *b = *(struct state_section *const *)pb;
	int rc = bytes_cmp(a->name, a->name_len, b->name, b->name_len);

	return rc ? rc : bytes_cmp(a->instance, a->instance_len, b->instance, b->instance_len);
}

static int state_in_index(struct state_in *in, struct err *err)
{
	for (unsigned i = 0; i < in->nsections; i++) {
		in->sorted[i] = &in->section[i];
	}
	qsort(in->sorted, in->nsections, sizeof(*in->sorted), state_section_cmp);
	for (unsigned i = 1; i < in->nsections; i++) {
		const struct state_section *s = in->sorted[i];

		if (state_section_cmp(&in->sorted[i - 1], &in->sorted[i]) == 0) {
			return err_set(err, EINVAL,
				       "saved state: section %.*s '%.*s' is there twice; the "
				       "file is damaged, save the state again",
				       s->name_len, s->name, s->instance_len, s->instance);
		}
	}
	return 0;
}

static int state_head_check(const uint8_t *data, size_t len, struct err *err)
{
	struct state_wire_head head;

	if (len < sizeof(head)) {
		return err_damaged(err, len, "it is too short");
	}
	memcpy(&head, data, sizeof(head));
	if (memcmp(head.magic, STATE_MAGIC, sizeof(head.magic)) != 0) {
		return err_set(err, EINVAL,
			       "this is no saved state; give a file that NEMU saved");
	}
	if (le32_get(head.format) != STATE_FORMAT || le32_get(head.zero)) {
		return err_set(
			err, EINVAL,
			"saved state has format %u, this program reads %u; use the version "
			"that saved it",
			le32_get(head.format), STATE_FORMAT);
	}
	return 0;
}

static int state_crc_check(const uint8_t *data, size_t len, struct err *err)
{
	struct crc32c crc;
	le32 wire;

	crc32c_init(&crc);
	memcpy(&wire, data + len - STATE_CRC_SIZE, sizeof(wire));
	if (crc32c_update(&crc, 0, data, len - STATE_CRC_SIZE) != le32_get(wire)) {
		return err_damaged(err, len - STATE_CRC_SIZE, "the checksum is wrong");
	}
	return 0;
}

int state_in_open(struct state_in **out, const void *data, size_t len, struct err *err)
{
	struct state_in *in;
	unsigned count;
	int rc;

	rc = state_head_check(data, len, err);
	if (rc) {
		return rc;
	}
	rc = state_in_walk(data, len, NULL, &count, err);
	if (rc) {
		return rc;
	}
	rc = state_crc_check(data, len, err);
	if (rc) {
		return rc;
	}
	in = calloc(1, sizeof(*in));
	if (!in) {
		return err_set(err, ENOMEM, "saved state: not enough memory");
	}
	in->nsections = count;
	in->section = calloc(MAX(count, 1u), sizeof(*in->section));
	in->sorted = calloc(MAX(count, 1u), sizeof(*in->sorted));
	if (!in->section || !in->sorted) {
		rc = err_set(err, ENOMEM, "saved state: not enough memory");
		goto free_in;
	}
	rc = state_in_walk(data, len, in->section, &count, err);
	if (!rc) {
		rc = state_in_index(in, err);
	}
	if (rc) {
		goto free_in;
	}
	*out = in;
	return 0;
free_in:
	state_in_free(in);
	return rc;
}

void state_in_free(struct state_in *in)
{
	if (!in) {
		return;
	}
	free(in->section);
	free(in->sorted);
	free(in);
}

/* Finds a section that is still to be taken, or says why not. */
static int state_section_find(struct state_in *in, uint8_t kind, const char *name,
			      const char *instance, struct state_section **out, struct err *err)
{
	size_t nlen = strlen(name), ilen = strlen(instance);
	struct state_section key = {.name = name, .instance = instance}, *keyp = &key, **hit;

	hit = NULL;
	if (nlen <= STATE_NAME_MAX && ilen <= STATE_INSTANCE_MAX) {
		key.name_len = (uint8_t)nlen;
		key.instance_len = (uint16_t)ilen;
		hit = bsearch(&keyp, in->sorted, in->nsections, sizeof(*in->sorted),
			      state_section_cmp);
	}
	if (!hit) {
		return err_set(err, ENOENT,
			       "saved state has no section %s '%s'; start with the devices it "
			       "was saved with",
			       name, instance);
	}
	if ((*hit)->taken) {
		return err_set(err, EEXIST, "state of %s '%s' is already loaded", name,
			       instance);
	}
	if ((*hit)->kind != kind) {
		return err_set(err, EINVAL, "saved state: section %s '%s' is of the wrong kind",
			       name, instance);
	}
	*out = *hit;
	return 0;
}

int state_get(struct state_in *in, const struct state_desc *d, const char *instance, void *st,
	      struct err *err)
{
	struct state_section *s;
	int rc;

	state_desc_check(d);
	memset(st, 0, d->size);
	rc = state_section_find(in, STATE_KIND_FIELDS, d->name, instance, &s, err);
	if (rc) {
		return rc;
	}
	rc = state_record_decode(s->data, s->len, d, st, err);
	if (rc) {
		err_prefix(err, "state of %s '%s' cannot be loaded", d->name, instance);
		memset(st, 0, d->size);
		return rc;
	}
	s->taken = true;
	return 0;
}

int state_get_blob(struct state_in *in, const char *name, const char *instance,
		   const void **data, uint64_t *len, struct err *err)
{
	struct state_section *s;
	int rc = state_section_find(in, STATE_KIND_BLOB, name, instance, &s, err);

	if (rc) {
		return rc;
	}
	s->taken = true;
	*data = s->data;
	*len = s->len;
	return 0;
}

int state_in_check_used(struct state_in *in, struct err *err)
{
	for (unsigned i = 0; i < in->nsections; i++) {
		const struct state_section *s = &in->section[i];

		if (!s->taken) {
			return err_set(
				err, EINVAL,
				"saved state has a section %.*s '%.*s' that nothing here "
				"takes; start with the devices it was saved with",
				s->name_len, s->name, s->instance_len, s->instance);
		}
	}
	return 0;
}
