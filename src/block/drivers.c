/*
 * The drivers that driver= can name. A build without one has a row less.
 */
#include <string.h>

#include "base/util.h"
#include "block/block_int.h"

static const struct blk_driver *const drivers[] = {
	&blk_raw_driver,  &blk_file_driver,	&blk_host_device_driver,
	&blk_null_driver, &blk_throttle_driver, &blk_qcow2_driver,
};

const struct blk_driver *blk_driver_nth(unsigned i)
{
	return i < ARRAY_SIZE(drivers) ? drivers[i] : NULL;
}

const struct blk_driver *blk_driver_find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(drivers); i++) {
		if (!strcmp(drivers[i]->name, name)) {
			return drivers[i];
		}
	}
	return NULL;
}
