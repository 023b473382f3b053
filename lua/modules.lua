-- require, dofile and loadfile: modules come from the roots and may call the guest while they load.
--
-- The standard ones are C functions that call the chunk, and Lua cannot yield across those.

local core = ...

local raw_require, raw_loadfile = require, loadfile
local raise = core.raise

local function exists(path)
	local f = io.open(path, "rb")
	if f then
		f:close()
	end
	return f ~= nil
end

local function templates()
	local list = {}
	for _, root in ipairs(core.roots()) do
		list[#list + 1] = root .. "/?.lua"
		list[#list + 1] = root .. "/?/init.lua"
	end
	for template in package.path:gmatch("[^;]+") do
		list[#list + 1] = template
	end
	return list
end

-- The file of a module, or nil and the list of places looked at.
local function find(name)
	local tried = {}
	local as_path = name:gsub("%.", "/")
	for _, template in ipairs(templates()) do
		local path = template:gsub("%?", (as_path:gsub("%%", "%%%%")))
		if exists(path) then
			return path
		end
		tried[#tried + 1] = "\n\tno file '" .. path .. "'"
	end
	return nil, table.concat(tried)
end

-- A task that asks for a module while another loads it waits for that one; a module that asks for
-- itself, directly or through others, would wait for ever.
local loading = {}

local function wait_for_other(name, entry)
	if core.locals().loading and core.locals().loading[name] then
		raise(("module '%s' requires itself (directly or through another module)"):format(name))
	end
	entry.latch:wait(("module \"%s\" to be loaded by another task"):format(name))
	return package.loaded[name]
end

local function load_module(name, loader, extra)
	local entry = { latch = core.latch() }
	local locals = core.locals()
	local outer = locals.loading
	loading[name] = entry
	locals.loading = setmetatable({ [name] = true }, { __index = outer })
	local ok, value = pcall(loader, name, extra)
	locals.loading = outer
	loading[name] = nil
	if ok then
		if value ~= nil then
			package.loaded[name] = value
		elseif package.loaded[name] == nil then
			package.loaded[name] = true
		end
	end
	entry.latch:open()
	if not ok then
		error(value, 0)
	end
	return package.loaded[name], extra
end

function require(name)
	if type(name) ~= "string" then
		raise("expected require(name), got a " .. type(name))
	end
	while loading[name] do
		wait_for_other(name, loading[name])
	end
	if package.loaded[name] ~= nil then
		return package.loaded[name]
	end
	if package.preload[name] then
		return load_module(name, package.preload[name], ":preload:")
	end
	local path, tried = find(name)
	if path then
		local chunk, message = raw_loadfile(path)
		if not chunk then
			raise(("error loading module '%s': %s"):format(name, message))
		end
		return load_module(name, chunk, path)
	end
	local ok, value = pcall(raw_require, name)	-- C libraries
	if ok then
		return value
	end
	raise(("module '%s' not found:%s"):format(name, tried))
end

-- A path that is not there from the current directory is looked up in the roots.
local function resolve(path)
	if path:sub(1, 1) == "/" or exists(path) then
		return path
	end
	for _, root in ipairs(core.roots()) do
		if exists(root .. "/" .. path) then
			return root .. "/" .. path
		end
	end
	return path
end

function loadfile(path, ...)
	if type(path) ~= "string" then
		raise("expected loadfile(path [, mode [, env]]), got a " .. type(path) .. " as path")
	end
	return raw_loadfile(resolve(path), ...)
end

function dofile(path)
	if type(path) ~= "string" then
		raise("expected dofile(path), got a " .. type(path))
	end
	local chunk, message = raw_loadfile(resolve(path))
	if not chunk then
		error(message, 0)
	end
	return chunk()
end
