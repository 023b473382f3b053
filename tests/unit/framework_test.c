/*
 * The test framework, over a fake core.
 */
#include "luacases.h"

int main(void)
{
	return luacases_run("framework_cases.lua");
}
