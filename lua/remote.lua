-- What the Lua face of guest operations shares: requests, checks of options and arguments.

local core = ...

local remote = {}
local raise, request = core.raise, core.request
local encode, decode = core.encode_request, core.msgpack().decode

-- Sends request `name` and returns the reply's table. shown is what messages name; method is the Lua name.
function remote.ask(target, name, params, shown, method)
	return decode(request(target, name, encode(params), shown, method))
end

remote.encode = encode

-- Raises unless options is nil or a table with no other keys than the known ones.
function remote.check_options(what, options, known)
	if options == nil then
		return {}
	elseif type(options) ~= "table" then
		raise(("%s: options must be a table, got a %s"):format(what, type(options)))
	end
	for key in pairs(options) do
		local ok = false
		for _, name in ipairs(known) do
			ok = ok or name == key
		end
		if not ok then
			local near = type(key) == "string" and core.nearest(key, known)
			raise(("%s: unknown option `%s`%s (known: %s)"):format(what, tostring(key),
				near and (", did you mean `" .. near .. "`?") or "", table.concat(known, ", ")))
		end
	end
	return options
end

local function a(v)
	return v == nil and "nil" or "a " .. type(v)
end

function remote.check_string(signature, position, v)
	if type(v) ~= "string" then
		raise(("expected %s, got %s as argument %d"):format(signature, a(v), position))
	end
	return v
end

function remote.is_integer(v)
	return type(v) == "number" and v == math.floor(v) and v - v == 0
end

function remote.check_integer(signature, position, v, min)
	if not remote.is_integer(v) then
		raise(("expected %s, got %s as argument %d"):format(signature,
			type(v) == "number" and tostring(v) .. ", which is not an integer," or a(v), position))
	elseif min and v < min then
		raise(("expected %s, got %s as argument %d, which must be at least %d"):format(signature, tostring(v), position,
			min))
	end
	return v
end

function remote.check_boolean_option(what, options, key)
	if options[key] ~= nil and type(options[key]) ~= "boolean" then
		raise(("%s: option `%s` must be a boolean, got %s"):format(what, key, a(options[key])))
	end
	return options[key]
end

function remote.check_self(class, self, method)
	if getmetatable(self) ~= class then
		raise(("expected a %s (call its methods with a colon: %s:%s()), got %s"):format(class.__name,
			class.__name:lower(), method, a(self)))
	end
end

-- Adds methods to both VM and Worker.
function remote.add(methods)
	for name, fn in pairs(methods) do
		core.VM[name] = fn
		core.Worker[name] = fn
	end
end

return remote
