/*
 * check: is an image consistent, and makes it so. Its backing files do not matter for that and are
 * not opened.
 */
#include <stdio.h>
#include <string.h>

#include "img.h"

const struct img_opt check_opts[] = {
	{'f', "format", "FMT", "format of the image; otherwise it is found out"},
	{ARG_OUTPUT, "output", "human|json", "form of the output"},
	{'r', "repair", "leaks|all", "repair leaks, or all that is wrong"},
	{'T', NULL, "CACHE", "cache mode: writeback (default), none, unsafe, ..."},
	{'q', NULL, NULL, "print nothing but errors"},
	{ARG_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a list of options: driver=...,file.filename=..."},
	{'U', "force-share", NULL, "the image may be in use by a process that writes it"},
	{.code = 0},
};

enum { STATUS_FAILED = 1, STATUS_CORRUPT = 2, STATUS_LEAKS = 3, STATUS_NO_CHECKS = 63 };

static void put(json_t *v, const char *key, uint64_t n)
{
	if (n) {
		json_object_set_new(v, key, json_integer((json_int_t)n));
	}
}

static void print_json(const struct img *i, const struct blk_check *c)
{
	json_t *v = json_object();

	put(v, "image-end-offset", c->image_end_offset);
	put(v, "compressed-clusters", c->compressed_clusters);
	put(v, "total-clusters", c->total_clusters);
	put(v, "corruptions", c->corruptions);
	json_object_set_new(v, "check-errors", json_integer((json_int_t)c->check_errors));
	put(v, "leaks-fixed", c->leaks_fixed);
	put(v, "corruptions-fixed", c->corruptions_fixed);
	put(v, "leaks", c->leaks);
	put(v, "allocated-clusters", c->allocated_clusters);
	json_object_set_new(v, "filename", img_json_str(i->filename));
	json_object_set_new(v, "format", img_json_str(img_format(i)));
	put(v, "fragmented-clusters", c->fragmented_clusters);
	img_json_print(v);
}

static double percent(uint64_t part, uint64_t of)
{
	return (double)part * 100 / (double)of;
}

static void print_human(const struct blk_check *c)
{
	if (!c->corruptions && !c->leaks && !c->check_errors) {
		printf("No errors were found on the image.\n");
	}
	if (c->corruptions) {
		printf("\n%llu errors were found on the image.\nData may be corrupted, or further "
		       "writes to the image may corrupt it.\n",
		       (unsigned long long)c->corruptions);
	}
	if (c->leaks) {
		printf("\n%llu leaked clusters were found on the image.\nThis means waste of disk "
		       "space, but no harm to data.\n",
		       (unsigned long long)c->leaks);
	}
	if (c->check_errors) {
		printf("\n%llu internal errors have occurred during the check.\n",
		       (unsigned long long)c->check_errors);
	}
	if (c->total_clusters && c->allocated_clusters) {
		printf("%llu/%llu = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed "
		       "clusters\n",
		       (unsigned long long)c->allocated_clusters,
		       (unsigned long long)c->total_clusters,
		       percent(c->allocated_clusters, c->total_clusters),
		       percent(c->fragmented_clusters, c->allocated_clusters),
		       percent(c->compressed_clusters, c->allocated_clusters));
	}
	if (c->image_end_offset) {
		printf("Image end offset: %llu\n", (unsigned long long)c->image_end_offset);
	}
}

/* Checks, and once more after a repair. */
static int run(struct img *i, unsigned fix, bool speak, struct blk_check *c, struct err *err)
{
	struct blk_check again = {.leaks = 0};
	int r = blk_image_check(i->node, c, fix, err);

	if (r || !(c->corruptions_fixed || c->leaks_fixed)) {
		return r;
	}
	if (speak) {
		printf("The following inconsistencies were found and repaired:\n\n"
		       "    %llu leaked clusters\n    %llu corruptions\n\n"
		       "Double checking the fixed image now...\n",
		       (unsigned long long)c->leaks_fixed,
		       (unsigned long long)c->corruptions_fixed);
	}
	r = blk_image_check(i->node, &again, 0, err);
	again.leaks_fixed = c->leaks_fixed;
	again.corruptions_fixed = c->corruptions_fixed;
	*c = again;
	return r;
}

static int check_image(struct img *i, unsigned fix, bool json, bool quiet)
{
	struct blk_check c = {.leaks = 0};
	struct err err;

	if (!blk_image_can_check(i->node)) {
		img_error("check: the format '%s' has nothing that could be checked",
			  img_format(i));
		return STATUS_NO_CHECKS;
	}
	if (run(i, fix, !json && !quiet, &c, &err)) {
		img_error("check: %s", err.msg);
		return STATUS_FAILED;
	}
	if (json) {
		print_json(i, &c);
	} else if (!quiet) {
		print_human(&c);
	}
	if (c.check_errors) {
		img_error("check: not all of the image could be read");
		return STATUS_FAILED;
	}
	return c.corruptions ? STATUS_CORRUPT : c.leaks ? STATUS_LEAKS : 0;
}

int cmd_check(struct img_args *a)
{
	const char *repair = img_arg(a, 'r');
	struct img_how how = {
		.fmt = img_arg(a, 'f'),
		.image_opts = img_given(a, ARG_IMAGE_OPTS),
		.cache = img_arg(a, 'T'),
		.force_share = img_given(a, 'U'),
		.no_backing = true,
		.no_repair = true,
		.write = repair != NULL,
		.resize = repair != NULL,
	};
	struct img i;
	struct err err;
	bool json;
	int status;

	if (img_arg_json(a, &json) || img_operands(a, 1, "the name of the image")) {
		return STATUS_FAILED;
	}
	if (repair && strcmp(repair, "leaks") && strcmp(repair, "all")) {
		img_error("check: -r %s is not valid; give leaks or all", repair);
		return STATUS_FAILED;
	}
	if (img_cache_check(how.cache, "-T", &err) ||
	    img_open(a->operand[0], &how, NULL, &i, &err)) {
		img_error("check: %s", err.msg);
		return STATUS_FAILED;
	}
	status = check_image(&i, !repair ? 0 : !strcmp(repair, "leaks") ? BLK_FIX_LEAKS
									: BLK_FIX_LEAKS | BLK_FIX_ERRORS,
			     json, img_given(a, 'q'));
	img_close(&i);
	return status;
}
