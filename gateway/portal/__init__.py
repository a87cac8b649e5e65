"""What people see of the gateway in a browser: signing in, and out.

Pages are rendered from templates that escape whatever is put into them; they run no scripts, and
their policy lets them load nothing but the style sheet that lies beside them.
"""
